"""Inputs on another file system than the local one: every format, through Beam's FileSystems alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipeline.errors import ConfigError, DataError
from pipeline.input_listing import list_inputs
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import SPLITS, DataDirectory
from pipeline.records.packed import RowLayout, read_packed
from pipeline.schema import FeatureSchema
from pipeline.schema_inference.infer import infer_schema
from pipeline.sources import plan_blocks, read_block
from tests.pipeline.sources import memory_filesystem

ROWS = 900
CONFIG = PreprocessConfig(block_bytes=2048, rows_per_record=64)
COLUMNS = ["y", "x", "c", "number"]


@pytest.fixture(autouse=True)
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """An empty store, and an empty directory for temporary files that must be empty again."""
    memory_filesystem.OBJECTS.clear()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield memory_filesystem.OBJECTS
    assert not list(scratch.glob("clickparity-*")), "copies are removed"


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "y": (rng.random(ROWS) < 0.3).astype(int),
            "x": rng.normal(size=ROWS).round(3),
            "c": [f"v{n}" for n in rng.zipf(1.5, ROWS).clip(0, 60)],
            "number": np.arange(ROWS),
        }
    )


def records(rows: pd.DataFrame, path: Path, compression: str = "") -> bytes:
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for y, x, c, number in rows.itertuples(index=False):
            example = tf.train.Example()
            example.features.feature["y"].int64_list.value.append(y)
            example.features.feature["x"].bytes_list.value.append(str(x).encode())
            example.features.feature["c"].bytes_list.value.append(c.encode())
            example.features.feature["number"].int64_list.value.append(number)
            writer.write(example.SerializeToString())
    return path.read_bytes()


def parquet(rows: pd.DataFrame) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), sink, row_group_size=70)
    return sink.getvalue().to_pybytes()


def content(kind: str, rows: pd.DataFrame, tmp_path: Path) -> tuple[dict[str, Any], bytes]:
    """(source, bytes) of the rows in a format."""
    csv = rows.to_csv(index=False).encode()
    tsv = rows.to_csv(index=False, header=False, sep="\t").encode()
    if kind == "csv":
        return {"kind": "csv"}, csv
    if kind == "csv.gz":
        return {"kind": "csv"}, gzip.compress(csv)
    if kind == "tsv":
        source = {"kind": "csv", "header": False, "columns": COLUMNS, "delimiter": "\t"}
        return {**source, "quote": None}, tsv
    if kind == "jsonl":
        return {"kind": "jsonl"}, rows.to_json(orient="records", lines=True).encode()
    if kind == "parquet":
        return {"kind": "parquet"}, parquet(rows)
    compression = "GZIP" if kind == "tfrecord.gz" else ""
    return {"kind": "examples"}, records(rows, tmp_path / "f.tfrecord", compression)


def make_schema(source: dict[str, Any]) -> FeatureSchema:
    features = [{"name": "x", "kind": "numeric"}, {"name": "c", "kind": "categorical"}]
    raw = {"name": "t", "source": source, "label": "y", "features": features}
    return FeatureSchema.model_validate({**raw, "carry": ["number"]})


def encoded(data: DataDirectory) -> dict[str, np.ndarray]:
    layout = RowLayout.of(data.spec)
    files = [str(f) for s in SPLITS for f in sorted((data.path / s).glob("part-*"))]
    rows = layout.unpack_numpy(read_packed(files, layout))
    order = np.argsort(rows["carry"][:, 0])
    return {name: values[order] for name, values in rows.items()}


KINDS = ["csv", "csv.gz", "tsv", "jsonl", "parquet", "tfrecord", "tfrecord.gz"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_read_where_it_lies(
    kind: str, tmp_path: Path, objects: dict[str, bytes]
) -> None:
    rows = frame()
    for i, part in enumerate((rows[:400], rows[400:])):
        source, objects[f"mem://bucket/day/part-{i}.{kind}"] = content(kind, part, tmp_path)
        (tmp_path / f"part-{i}.{kind}").write_bytes(objects[f"mem://bucket/day/part-{i}.{kind}"])
    objects["mem://bucket/day/notes.txt"] = b"not a log"
    schema = make_schema(source)
    there = preprocess(schema, [f"mem://bucket/day/part-*.{kind}"], tmp_path / "there", CONFIG)
    here = preprocess(schema, [str(tmp_path / f"part-*.{kind}")], tmp_path / "here", CONFIG)
    assert there.summary["input_rows"] == ROWS == there.summary["sum_of_parts"]
    assert there.summary["input_files"] == 2
    assert there.summary["input_bytes"] == sum(
        len(o) for n, o in objects.items() if n.endswith(kind)
    )
    found = encoded(there)
    assert found["carry"][:, 0].tolist() == rows.number.tolist()
    assert found["label"].tolist() == rows.y.tolist()
    for name, values in encoded(here).items():
        assert values.tobytes() == found[name].tobytes(), name
    splittable = kind in ("csv", "tsv", "jsonl", "parquet")
    plan = plan_blocks(schema, list_inputs([f"mem://bucket/day/*.{kind}"]), block_bytes=2048)
    assert (len(plan.blocks) > 4) == splittable
    assert {b.path for b in plan.blocks} == {f"mem://bucket/day/part-{i}.{kind}" for i in (0, 1)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_inferred_from_there(
    kind: str, tmp_path: Path, objects: dict[str, bytes]
) -> None:
    _, objects["mem://bucket/log"] = content(kind, frame(), tmp_path)
    (tmp_path / "log").write_bytes(objects["mem://bucket/log"])
    there = infer_schema("mem://bucket/log", 10_000, label=None if kind != "tsv" else "f1")
    here = infer_schema(str(tmp_path / "log"), 10_000, label=None if kind != "tsv" else "f1")
    assert there.schema == here.schema
    assert len(there.schema.features) >= 2


def test_the_time_of_an_object_is_in_the_fingerprint(
    tmp_path: Path, objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    objects["mem://bucket/log.csv"] = frame().to_csv(index=False).encode()
    schema = make_schema({"kind": "csv"})
    preprocess(schema, ["mem://bucket/log.csv"], tmp_path / "data", CONFIG)
    before = (tmp_path / "data" / "_SUCCESS").read_text()
    preprocess(schema, ["mem://bucket/log.csv"], tmp_path / "data", CONFIG)
    assert (tmp_path / "data" / "_SUCCESS").read_text() == before
    objects["mem://bucket/log.csv"] += b"1,2.0,v1,900\n"
    with pytest.raises(ConfigError, match="another data set or run"):
        preprocess(schema, ["mem://bucket/log.csv"], tmp_path / "data", CONFIG)


def test_bad_rows_keep_their_remote_place(tmp_path: Path, objects: dict[str, bytes]) -> None:
    lines = frame().to_csv(index=False).encode().splitlines(keepends=True)
    bad = b"1,abc,v1,77777\n"
    objects["mem://bucket/log.csv"] = b"".join([*lines[:500], bad, *lines[500:]])
    data = preprocess(
        make_schema({"kind": "csv"}), ["mem://bucket/log.csv"], tmp_path / "data", CONFIG
    )
    (entry,) = [
        json.loads(line)
        for file in (data.path / "rejects").iterdir()
        for line in file.read_text().splitlines()
    ]
    assert entry == {
        "file": "mem://bucket/log.csv",
        "offset": sum(map(len, lines[:500])),
        "reason": "x must be a number: got 'abc'",
        "raw": "1,abc,v1,77777",
    }


def test_image_paths_may_be_remote(objects: dict[str, bytes]) -> None:
    png = tf.io.encode_png(np.full((2, 2, 1), 9, np.uint8)).numpy()
    objects["mem://bucket/a.png"] = png
    paths = ["mem://bucket/a.png", "mem://bucket/none.png", "nowhere://a/b.png", ""]
    objects["mem://bucket/log.csv"] = b"y,p\n" + "".join(f"1,{p}\n" for p in paths).encode()
    schema = FeatureSchema.model_validate(
        {
            "name": "t",
            "source": {"kind": "csv"},
            "label": "y",
            "features": [{"name": "p", "kind": "image", "is_path": True}],
        }
    )
    plan = plan_blocks(schema, list_inputs(["mem://bucket/log.csv"]))
    (chunk,) = read_block(plan.blocks[0], plan.schema)
    assert chunk.table["p"].to_pylist() == [png, b""]
    assert [r.raw.decode() for r in chunk.rejects] == [f"1,{p}" for p in paths[1:3]]
    assert all(r.reason.startswith("image p cannot be read: ") for r in chunk.rejects)


@pytest.mark.parametrize(
    "pattern, phrases",
    [
        ("mem://bucket/none-*", ["must match at least one file"]),
        ("mem://bucket/none", ["must match at least one file"]),
        ("memm://bucket/x", ["file system that Beam can reach", "memm:// a typo"]),
    ],
)
def test_inputs_that_are_not_there(pattern: str, phrases: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_blocks(make_schema({"kind": "csv"}), list_inputs([pattern]))
    assert all(phrase in str(caught.value) for phrase in phrases), str(caught.value)


def cut_in_half(path: Path) -> bytes:
    whole = records(frame(), path, "GZIP")
    return whole[: len(whole) // 2]


def cut_in_the_checksum(path: Path) -> bytes:
    return records(frame(), path, "GZIP")[:-6]


def cut_between_two_records(path: Path) -> bytes:
    """What TensorFlow itself reads to its end without an error."""
    packer = zlib.compressobj(wbits=31)
    start = packer.compress(records(frame()[:500], path)) + packer.flush(zlib.Z_SYNC_FLUSH)
    path.write_bytes(start)
    assert sum(1 for _ in tf.data.TFRecordDataset(str(path), "GZIP")) == 500
    return start


def with_another_checksum(path: Path) -> bytes:
    whole = bytearray(records(frame(), path, "GZIP"))
    whole[-6] ^= 1
    return bytes(whole)


@pytest.mark.parametrize(
    "damaged, rule",
    [
        (cut_in_half, "a whole TFRecord file"),
        (cut_in_the_checksum, "a whole TFRecord file"),
        (cut_between_two_records, "a whole TFRecord file"),
        (with_another_checksum, "readable as examples"),  # met already with the first record
    ],
)
def test_a_damaged_compressed_record_file_is_bad_data(
    damaged: Callable[[Path], bytes], rule: str, tmp_path: Path, objects: dict[str, bytes]
) -> None:
    objects["mem://bucket/f"] = damaged(tmp_path / "f")
    with pytest.raises(DataError, match=f"mem://bucket/f must be {rule}; got") as caught:
        preprocess(make_schema({"kind": "examples"}), ["mem://bucket/f"], tmp_path / "data", CONFIG)
    assert "{{" not in str(caught.value) and "[Op:" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_gzip_streams_one_after_another_are_one_file(
    tmp_path: Path, objects: dict[str, bytes]
) -> None:
    rows, file = frame(), tmp_path / "f"
    parts = [records(rows[:400], file, "GZIP"), records(rows[400:], file, "GZIP")]
    objects["mem://bucket/f"] = b"".join(parts)
    plan = plan_blocks(make_schema({"kind": "examples"}), list_inputs(["mem://bucket/f"]))
    read = [chunk.table.num_rows for chunk in read_block(plan.blocks[0], plan.schema)]
    assert sum(read) == ROWS


def test_a_first_record_that_looks_like_gzip_is_none(tmp_path: Path) -> None:
    example = tf.train.Example()
    example.features.feature["y"].int64_list.value.append(1)
    example.features.feature["c"].bytes_list.value.append(b"c" * 35_000)
    missing = 35_615 - len(example.SerializeToString())
    example.features.feature["c"].bytes_list.value[0] += b"c" * missing
    path = tmp_path / "f.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(example.SerializeToString())
    assert path.read_bytes()[:2] == b"\x1f\x8b", "35,615 is 0x8b1f"
    raw = {
        "name": "t",
        "source": {"kind": "examples"},
        "label": "y",
        "features": [{"name": "c", "kind": "categorical"}],
    }
    plan = plan_blocks(FeatureSchema.model_validate(raw), list_inputs([str(path)]))
    (chunk,) = read_block(plan.blocks[0], plan.schema)
    digest = hashlib.sha256(chunk.table["c"].to_pylist()[0]).hexdigest()
    assert digest == hashlib.sha256(b"c" * (35_000 + missing)).hexdigest()
