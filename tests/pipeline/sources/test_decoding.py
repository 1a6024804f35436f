"""Text in any encoding, compression and line end is the same; archives and damaged files are refused."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import DataError
from pipeline.input_listing import list_inputs
from pipeline.schema import FeatureSchema
from pipeline.sources import plan_blocks, read_block

ROWS = 5000
TEXT = "y,도시,x\n" + "".join(f"{i % 2},{'서울 é'[i % 5 :]},{i * 0.5}\n" for i in range(ROWS))
SCHEMA = FeatureSchema.model_validate(
    {
        "name": "t",
        "label": "y",
        "features": [
            {"name": "city", "column": "도시", "kind": "categorical"},
            {"name": "x", "kind": "numeric"},
        ],
    }
)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd,
}  # fmt: skip
CHARSETS: dict[str, Callable[[str], bytes]] = {
    "utf-8": str.encode,
    "utf-8 with a mark": lambda t: codecs.BOM_UTF8 + t.encode(),
    "utf-16 le": lambda t: codecs.BOM_UTF16_LE + t.encode("utf-16-le"),
    "utf-16 be": lambda t: codecs.BOM_UTF16_BE + t.encode("utf-16-be"),
}


def read(path: Path) -> tuple[dict[str, list[Any]], int]:
    plan = plan_blocks(SCHEMA, list_inputs([str(path)]), block_bytes=1 << 14)
    chunks = [c for block in plan.blocks for c in read_block(block, plan.schema)]
    table = pa.concat_tables([c.table for c in chunks])
    assert sum(c.num_rows for c in chunks) == table.num_rows + sum(len(c.rejects) for c in chunks)
    return table.to_pydict(), sum(len(c.rejects) for c in chunks)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("charset", list(CHARSETS))
@pytest.mark.parametrize("compression", list(COMPRESSIONS))
def test_the_same_rows_however_they_are_stored(
    tmp_path: Path, compression: str, charset: str, line_end: str
) -> None:
    data = CHARSETS[charset](TEXT.replace("\n", line_end))
    path = tmp_path / "log.csv"
    path.write_bytes(COMPRESSIONS[compression](data))
    columns, rejected = read(path)
    assert rejected == 0
    assert columns["x"] == [i * 0.5 for i in range(ROWS)]
    assert columns["도시"] == ["서울 é"[i % 5 :].encode() for i in range(ROWS)]


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_members_one_after_another_are_one_file(tmp_path: Path, compression: str) -> None:
    pack, half = COMPRESSIONS[compression], len(TEXT.encode()) // 2
    path = tmp_path / "log.csv"
    path.write_bytes(pack(TEXT.encode()[:half]) + pack(TEXT.encode()[half:]))
    assert len(read(path)[0]["x"]) == ROWS


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, compression: str) -> None:
    data = COMPRESSIONS[compression](
        "".join(f"1,{i * 7919},{i}\n" for i in range(400_000)).encode()
    )
    path = tmp_path / "log.csv"
    path.write_bytes(COMPRESSIONS[compression](TEXT.encode()) + data[: len(data) // 2])
    with pytest.raises(DataError, match=rf"log\.csv must be a whole {compression} file"):
        read(path)


def test_half_a_character_of_utf_16_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(codecs.BOM_UTF16_LE + (TEXT * 40).encode("utf-16-le")[:-1])
    with pytest.raises(DataError, match="must be"):
        read(path)


def test_an_archive_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log.zip"
    path.write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(DataError, match=r"a zip archive\. Unpack it"):
        read(path)


def test_a_text_that_begins_like_a_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("BZh,도시,x,y\n1,a,2,1\n", encoding="utf-8")
    assert read(path)[0]["x"] == [2.0]
