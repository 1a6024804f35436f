"""Every kind of damage through the whole job: counts, place and bytes of each reject, and the sums."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import SPLITS, DataDirectory
from pipeline.records.packed import RowLayout, read_packed
from pipeline.schema import FeatureSchema

CONFIG = PreprocessConfig(block_bytes=16_384, rows_per_record=64, max_reject_rate=0.2)
LONG = b"1,1,7000010," + b"z" * (10 << 20)
BAD = {
    "every row must have 4 columns": b"1,2,7000001",
    "not UTF-8": b"1,2,7000002,\xff\xfe",
    "x must be a number": b"1,abc,7000003,c",
    "label y is neither 0 nor 1": b"2,1,7000004,c",
    "label y is missing": b",1,7000005,c",
    "NUL byte": b"1,2,7000006,a\0b",
    "line longer than 1048576 bytes": LONG,
    "unbalanced quote": b'1,2,7000007,"open',
    "carriage return inside a line": b"1,2,7000008,a\rb",
}


def make_schema(kind: str = "csv", **source: Any) -> FeatureSchema:
    features = [{"name": "x", "kind": "numeric"}, {"name": "c", "kind": "categorical"}]
    raw = {"name": "t", "source": {"kind": kind, **source}, "label": "y", "features": features}
    return FeatureSchema.model_validate({**raw, "carry": ["number"]})


def good_lines(rows: int = 1500) -> list[bytes]:
    return [b"%d,%d,%d,v%d" % (i % 5 == 0, i % 7, i, i % 40) for i in range(rows)]


def numbers(data: DataDirectory) -> list[int]:
    layout = RowLayout.of(data.spec)
    files = [str(f) for s in SPLITS for f in sorted((data.path / s).glob("part-*"))]
    carry = layout.unpack_numpy(read_packed(files, layout))["carry"]
    return sorted(int(n) for n in carry[:, 0])


def rejects(data: DataDirectory) -> list[dict[str, Any]]:
    found = [
        json.loads(line)
        for file in sorted((data.path / "rejects").iterdir())
        for line in file.read_text().splitlines()
    ]
    return sorted(found, key=lambda r: (r["file"], r["offset"]))


def raw_of(reject: dict[str, Any]) -> bytes:
    if "raw" in reject:
        return str(reject["raw"]).encode()
    return base64.b64decode(reject["raw_base64"])


def check_sums(data: DataDirectory, good: int, bad: int) -> None:
    """Nothing in two places, nothing in none."""
    summary = data.summary
    assert summary["input_rows"] == summary["sum_of_parts"] == good + bad
    assert summary["rejected_rows"] == bad == sum(r.get("rows", 1) for r in rejects(data))
    places = sum(summary["splits"][s]["input_rows"] for s in SPLITS)
    assert places + summary["dropped_by_sampling"] == good
    assert sum(summary["reject_reasons"].values()) == bad


@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_every_kind_of_bad_line(packing: str, tmp_path: Path) -> None:
    lines, places = good_lines(), {}
    for i, bad in enumerate(BAD.values()):
        lines.insert(5 + 150 * i, bad)
    text = b"y,x,number,c\n" + b"\n".join(lines) + b"\n"
    for bad in BAD.values():
        places[bad] = text.index(b"\n" + bad + b"\n") + 1
    path = tmp_path / "log.csv"
    path.write_bytes(text if packing == "plain" else gzip.compress(text, 1))
    data = preprocess(make_schema(), [str(path)], tmp_path / "data", CONFIG)
    assert data.summary["reject_reasons"] == dict.fromkeys(sorted(BAD), 1)
    found = rejects(data)
    assert {raw_of(r): r["offset"] for r in found} == places
    assert {r["file"] for r in found} == {str(path)}
    for reject in found:
        assert BAD[reject["reason"].split(": ")[0]] == raw_of(reject)
    assert numbers(data) == list(range(1500))
    check_sums(data, 1500, len(BAD))


def test_rejects_and_sampling_and_splits_add_up(tmp_path: Path) -> None:
    lines = good_lines()
    for i in range(60):
        lines.insert(20 * i, b"1,1,9000000")
    path = tmp_path / "log.csv"
    path.write_bytes(b"y,x,number,c\n" + b"\n".join(lines))
    config = CONFIG.model_copy(update={"negative_keep_rate": 0.3})
    data = preprocess(make_schema(), [str(path)], tmp_path / "data", config)
    assert data.summary["dropped_by_sampling"] > 500
    assert len(numbers(data)) == 1500 - data.summary["dropped_by_sampling"]
    check_sums(data, 1500, 60)


def parquet_log(path: Path, rows: Sequence[int] = range(1500)) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "y": [int(i % 5 == 0) for i in rows],
            "x": rng.random(len(rows)),
            "number": list(rows),
            "c": [f"v{i % 40}" for i in rows],
        }
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, path, row_group_size=100, write_page_checksum=True)
    return frame


def damage(path: Path, group: int, column: int) -> None:
    """Zeroes bytes in the middle of one column of one row group."""
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(group).column(column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    middle = start + chunk.total_compressed_size // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(bytes(data))


def test_corrupt_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    parquet_log(path)
    for group in (3, 11):
        damage(path, group, 1)
    data = preprocess(make_schema("parquet"), [str(path)], tmp_path / "data", CONFIG)
    lost = {*range(300, 400), *range(1100, 1200)}
    assert numbers(data) == [i for i in range(1500) if i not in lost]
    found = rejects(data)
    assert [(r["offset"], r["rows"]) for r in found] == [(300, 100), (1100, 100)]
    assert [r["reason"].split(": ")[0] for r in found] == [
        "row group 3 cannot be read",
        "row group 11 cannot be read",
    ]
    check_sums(data, 1300, 200)
    # The rows count towards the limit, not the row group.
    strict = CONFIG.model_copy(update={"max_reject_rate": 0.1})
    with pytest.raises(DataError, match=r"200 of 1500 \(13\.33%\)") as caught:
        preprocess(make_schema("parquet"), [str(path)], tmp_path / "strict", strict)
    assert caught.value.exit_code == 4
    assert not (tmp_path / "strict").exists()


def test_a_column_that_is_not_read_may_be_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    frame = parquet_log(path)
    pq.write_table(
        pa.Table.from_pandas(frame.assign(other=frame.x), preserve_index=False),
        path,
        row_group_size=100,
        write_page_checksum=True,
    )
    damage(path, 3, 4)
    data = preprocess(make_schema("parquet"), [str(path)], tmp_path / "data", CONFIG)
    check_sums(data, 1500, 0)


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.999])
def test_a_truncated_gzip_file_stops_the_job(cut: float, tmp_path: Path) -> None:
    """How many rows are missing nobody can tell: no sum would prove anything."""
    path = tmp_path / "log.csv.gz"
    whole = gzip.compress(b"y,x,number,c\n" + b"\n".join(good_lines(30_000)))
    path.write_bytes(whole[: int(len(whole) * cut)])
    good = tmp_path / "good.csv"
    good.write_bytes(b"y,x,number,c\n" + b"\n".join(good_lines()))
    with pytest.raises(DataError, match=r"log\.csv\.gz must be a whole gzip file") as caught:
        preprocess(make_schema(), [str(tmp_path / "*.csv*")], tmp_path / "out" / "data", CONFIG)
    assert caught.value.exit_code == 4
    assert list((tmp_path / "out").iterdir()) == []


def test_quoted_line_breaks_and_bad_rows_between(tmp_path: Path) -> None:
    lines = [b'1,%d,%d,"two\nlines ""%d"""' % (i, i, i) for i in range(1500)]
    bad = b'1,abc,7000000,"also\ntwo"'
    lines.insert(700, bad)
    text = b"y,x,number,c\r\n" + b"\r\n".join(lines) + b"\r\n"
    path = tmp_path / "log.csv"
    path.write_bytes(text)
    schema = make_schema(newlines_in_values=True)
    data = preprocess(schema, [str(path)], tmp_path / "data", CONFIG)
    (reject,) = rejects(data)
    assert raw_of(reject) == bad
    assert reject["offset"] == text.index(bad)
    assert numbers(data) == list(range(1500))
    check_sums(data, 1500, 1)


@pytest.mark.parametrize("layout", ["packed", "examples"])
def test_shards_follow_the_size_of_the_data(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"y,x,number,c\n" + b"\n".join(good_lines(4000)))
    shards = []
    for shard_bytes in (1 << 26, 1 << 13, 1 << 12):
        config = CONFIG.model_copy(update={"shard_bytes": shard_bytes, "layout": layout})
        data = preprocess(make_schema(), [str(path)], tmp_path / f"{shard_bytes}", config)
        files = sorted((data.path / "train").iterdir())
        rows = data.num_rows("train")
        width = RowLayout.of(data.spec).row_words * 4
        expected = max(-(-(rows + 1) * width // shard_bytes), 4)  # 4 where there is enough to share
        assert len(files) == expected == data.summary["splits"]["train"]["shards"]
        assert [f.name for f in files] == [
            f"part-{i:05d}-of-{expected:05d}.tfrecord" for i in range(expected)
        ]
        shards.append(expected)
    assert shards[0] == 4 < shards[1] < shards[2]
