"""Lines without an end: one reject each, in bounded memory and in one pass over the file."""

from __future__ import annotations

import gzip
import io
import time
import tracemalloc
from pathlib import Path

import pytest

from pipeline.input_listing import list_inputs
from pipeline.schema import FeatureSchema
from pipeline.sources import Reject, plan_blocks, read_block
from pipeline.sources.lines import bounded_lines, next_line

_MB = 1 << 20
_BEFORE, _AFTER = b"click,site\n1,a\n0,b\n", b"\n1,c\n0,d\n"


def _schema(**source: object) -> FeatureSchema:
    return FeatureSchema.model_validate(
        {
            "name": "x",
            "source": {"kind": "csv", **source},
            "label": "click",
            "features": [{"name": "site", "kind": "categorical"}],
        }
    )


def _read(schema: FeatureSchema, path: Path, block_bytes: int) -> tuple[list[bytes], list[Reject]]:
    sites: list[bytes] = []
    rejects: list[Reject] = []
    plan = plan_blocks(schema, list_inputs([str(path)]), block_bytes=block_bytes)
    for block in plan.blocks:
        for chunk in read_block(block, plan.schema):
            sites += chunk.table["site"].to_pylist()
            rejects += chunk.rejects
            assert chunk.num_rows == chunk.table.num_rows + len(chunk.rejects)
    return sites, rejects


@pytest.mark.parametrize("how", ["plain", "gzip", "quoted", "quoted gzip"])
def test_a_line_of_60_mb_is_one_reject(how: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    middle = b'1,"' + bytes([120]) * (60 * _MB) + b'"' if "quoted" in how else b"x" * (60 * _MB)
    if "gzip" in how:
        with gzip.open(path, "wb", compresslevel=1) as stream:
            stream.write(_BEFORE + middle + _AFTER)
    else:
        path.write_bytes(_BEFORE + middle + _AFTER)
    del middle
    schema = _schema(newlines_in_values="quoted" in how)
    started = time.monotonic()
    tracemalloc.start()
    try:
        sites, rejects = _read(schema, path, 8 * _MB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sites == [b"a", b"b", b"c", b"d"]
    assert [(r.kind, r.offset) for r in rejects] == [("line longer than 1048576 bytes", 19)]
    assert peak < 130 * _MB
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("block_bytes", [7, 64, 1000, 4096, 1 << 22])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_long_lines_in_any_blocks(block_bytes: int, end: bytes, tmp_path: Path) -> None:
    """Rows around and between them are read once."""
    long = b"y" * (17 * _MB)
    path = tmp_path / "log.csv"
    path.write_bytes(_BEFORE + long + b"\n0,m\n" + long + _AFTER + long + end)
    if block_bytes < 1000:  # a few blocks around each end instead of half a million
        path.write_bytes(_BEFORE + b"1,z\n" * 300 + _AFTER[1:] + end)
    sites, rejects = _read(_schema(), path, block_bytes)
    between = [b"z"] * 300 if block_bytes < 1000 else [b"m"]
    assert sites == [b"a", b"b", *between, b"c", b"d"]
    assert len(rejects) == (0 if block_bytes < 1000 else 3)


def test_a_quote_that_is_never_closed_takes_the_rest_as_one_reject(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(_BEFORE + b'1,"' + b"q\n" * (20 * _MB))
    sites, rejects = _read(_schema(newlines_in_values=True), path, 8 * _MB)
    assert sites == [b"a", b"b"]
    assert [r.kind for r in rejects] == ["line longer than 1048576 bytes"]


def test_bounded_lines() -> None:
    stream = io.BytesIO(b"ab\nabcdef\ncd\nabc\nlast")
    assert list(bounded_lines(stream, 4, 100)) == [b"ab\n", b"cd\n", b"abc\n", b"last"]
    assert list(bounded_lines(io.BytesIO(b"ab\n" * 100), 4, 9)) == [b"ab\n"] * 3


def test_next_line_looks_no_further_than_asked() -> None:
    stream = io.BytesIO(b"abc\ndef\nghi")
    assert next_line(stream, 0, 100) == 4
    assert next_line(stream, 4, 6) == 6
    assert stream.tell() == 6
    assert next_line(stream, 6, 100) == 8
    assert next_line(stream, 8, 100) == 11
