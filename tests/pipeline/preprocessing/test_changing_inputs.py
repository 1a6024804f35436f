"""Input that changes while it is read: found, named, refused (exit 4), and nothing is left behind."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ClickparityError, DataError
from pipeline.input_listing import list_inputs
from pipeline.preprocessing import count_pass
from pipeline.preprocessing.accounting import summarise
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.encode_pass import ShardResult
from pipeline.preprocessing.job import preprocess
from pipeline.preprocessing.row_fates import RowFates
from pipeline.schema import FeatureSchema
from pipeline.statistics.feature_statistics import PartialStatistics

ROWS = 2000
CONFIG = PreprocessConfig(block_bytes=8192, rows_per_record=64)
HEADER = "y,x,c\n"


def make_schema(**changes: Any) -> FeatureSchema:
    raw = {
        "name": "t",
        "label": "y",
        "features": [{"name": "x", "kind": "numeric"}, {"name": "c", "kind": "categorical"}],
    }
    return FeatureSchema.model_validate({**raw, **changes})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "log.csv"
    path.parent.mkdir()
    path.write_text(HEADER + "".join(f"{i % 2},{i},v{i % 9}\n" for i in range(ROWS)))
    os.utime(path, ns=(1, 10**18))  # so that no change is hidden by a coarse clock
    return path


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def append(path: Path) -> None:
    with open(path, "a") as stream:
        stream.write("1,5,v1\n")


def rewrite(path: Path) -> None:
    """The same size, and the modification time put back: other content all the same."""
    stat = path.stat()
    path.write_text(path.read_text().replace("v1", "v2"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def rotate(path: Path) -> None:
    """Replaced by a rename, with the same size and time."""
    stat = path.stat()
    beside = path.with_suffix(".new")
    beside.write_text(path.read_text().replace("v3", "v4"))
    os.utime(beside, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    beside.rename(path)


CHANGES = (cut, append, rewrite, rotate, os.utime, os.unlink)


def refused(call: Callable[[], object], log: Path, out: Path) -> None:
    """Asserts that the error names the file and what to do, and that `out` and its staging are gone."""
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert f"{log}: listed with" in text
    assert "Run again when nobody writes to it." in text
    assert "gone" in text if not log.exists() else f"now {log.stat().st_size:,} bytes" in text
    assert list(out.parent.iterdir()) == []


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "data"


@pytest.mark.parametrize("phase", ["statistics", "encode"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_between_passes(change: Callable[[Path], None], phase: str, log: Path, out: Path) -> None:
    @contextlib.contextmanager
    def hook(name: str, marks: Path, num_blocks: int) -> Iterator[None]:
        if name == phase:
            change(log)
        yield

    refused(lambda: preprocess(make_schema(), [str(log)], out, CONFIG, progress=hook), log, out)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_while_a_block_is_read(
    change: Callable[[Path], None], log: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, seen = count_pass.count_chunk, []

    def hook(*arguments: Any) -> Any:
        seen.append(arguments)
        if len(seen) == 2:
            change(log)
        return count(*arguments)

    monkeypatch.setattr(count_pass, "count_chunk", hook)
    refused(lambda: preprocess(make_schema(), [str(log)], out, CONFIG), log, out)
    assert len(seen) == 2, "the block in which it happened is the last one"


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_between_listing_and_reading(change: Callable[[Path], None], log: Path, out: Path) -> None:
    listing = list_inputs([str(log)])
    change(log)
    refused(lambda: preprocess(make_schema(), listing, out, CONFIG), log, out)


def test_in_the_pass_over_the_times(log: Path, out: Path) -> None:
    lines = log.read_text().splitlines()
    rows = [f"{line},{1_400_000_000 + 60 * i}" for i, line in enumerate(lines[1:])]
    log.write_text("\n".join([f"{lines[0]},t", *rows]) + "\n")
    schema = make_schema(
        time={"column": "t", "format": "epoch_s"},
        split={"by": "time", "validation": 0.1, "test": 0.1},
    )

    @contextlib.contextmanager
    def hook(name: str, marks: Path, num_blocks: int) -> Iterator[None]:
        if name == "times":
            cut(log)
        yield

    refused(lambda: preprocess(schema, [str(log)], out, CONFIG, progress=hook), log, out)


def test_what_cannot_be_parsed_any_more_is_said_to_have_changed(log: Path, out: Path) -> None:
    """A gzip file that is cut is no whole gzip file: but the reason is that somebody writes to it."""
    packed = log.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(log.read_bytes()))

    @contextlib.contextmanager
    def hook(name: str, marks: Path, num_blocks: int) -> Iterator[None]:
        cut(packed)
        yield

    schema = make_schema(source={"kind": "csv"})
    refused(lambda: preprocess(schema, [str(packed)], out, CONFIG, progress=hook), packed, out)


def test_the_same_files_are_listed_once(
    log: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that appears after the listing belongs to the next job."""
    import glob

    calls = []
    expand = glob.glob
    monkeypatch.setattr(glob, "glob", lambda p, **o: (calls.append(p), expand(p, **o))[1])
    pattern = str(log.parent / "*.csv")
    listing = list_inputs([pattern])
    shutil.copy(log, log.with_name("later.csv"))
    data = preprocess(make_schema(), listing, out, CONFIG)
    assert data.summary["input_rows"] == ROWS
    assert data.summary["input_files"] == 1
    assert [c for c in calls if c == pattern] == [pattern]


# ------------------------------------------------------------------------------------- accounting


def summary_of(**changes: Any) -> dict[str, Any]:
    """A job of 100 lines: 3 rejected, 7 dropped, 90 rows and examples in three splits."""
    counted = PartialStatistics(input_rows=changes.get("lines", 100))
    counted.rejected_rows = 3
    fates = RowFates(changes.get("rows", (70, 10, 10)), 7, changes.get("examples", (70, 10, 10)))
    written = changes.get("written", (70, 10, 10))
    shards = [ShardResult(i, 0, rows, float(rows), 1.0) for i, rows in enumerate(written)]
    return summarise(list_inputs([__file__]), counted, fates, shards, CONFIG, "f", 2)


def test_the_sums_come_out() -> None:
    summary = summary_of()
    assert (summary["input_rows"], summary["sum_of_parts"]) == (100, 100)
    assert [summary["splits"][s]["rows"] for s in ("train", "validation", "test")] == [70, 10, 10]


@pytest.mark.parametrize(
    "changes, phrase",
    [
        ({"lines": 101}, "101 read, 100 accounted for"),
        ({"rows": (69, 10, 10)}, "100 read, 99 accounted for"),
        ({"rows": (71, 10, 10)}, "100 read, 101 accounted for"),
        ({"written": (69, 10, 10)}, r"\(70, 10, 10\) made for train, validation, test"),
        ({"written": (70, 9, 11)}, r"\(70, 9, 11\) written"),
    ],
)
def test_a_sum_that_does_not_come_out(changes: dict[str, Any], phrase: str) -> None:
    with pytest.raises(ClickparityError, match=phrase):
        summary_of(**changes)


@pytest.mark.parametrize("num_partitions", [1, 5])
def test_the_number_of_partitions_changes_no_byte(
    num_partitions: int, log: Path, tmp_path: Path
) -> None:
    made = []
    for name, config in (
        ("a", CONFIG),
        ("b", CONFIG.model_copy(update={"num_partitions": num_partitions})),
    ):
        data = preprocess(make_schema(), [str(log)], tmp_path / name, config)
        made.append(
            {
                str(p.relative_to(data.path)): p.read_bytes()
                for p in data.path.rglob("*")
                if p.is_file()
            }
        )
    assert made[0] == made[1], "the fingerprint is one, too"


def test_a_limit_is_held_against_what_is_finished(log: Path, tmp_path: Path) -> None:
    with open(log, "a") as stream:
        stream.write("2,5,v1\n" * 10)
    preprocess(make_schema(), [str(log)], tmp_path / "data", CONFIG)
    strict = CONFIG.model_copy(update={"max_reject_rate": 0.001})
    with pytest.raises(DataError, match=r"at most 0.10%.*10 of 2010.*First reject: \{"):
        preprocess(make_schema(), [str(log)], tmp_path / "data", strict)
