"""A block -> Arrow tables of the schema's columns, typed, and the rows that could not be read.

Numbers are float64 with NaN for missing; texts are binary with the empty text for missing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.schema import ExamplesFormat, FeatureSchema, ImageColumn, ParquetFormat
from pipeline.sources.block import Block
from pipeline.sources.chunk import Chunk, Parsed, Reject
from pipeline.sources.text import read_text
from pipeline.sources.values import bad_rows, load_images

__all__ = ["MAX_LINE_BYTES", "Chunk", "Reject", "read_block"]

MAX_LINE_BYTES = 1 << 20
_IMAGES_AT_ONCE = 1024


def read_block(
    block: Block,
    schema: FeatureSchema,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    chunk_bytes: int | None = None,
) -> Iterator[Chunk]:
    """Reads a block, in chunks of a few MB.

    Args:
        block: of `plan_blocks`.
        schema: resolved against the file's columns.
        max_line_bytes: a longer line is rejected.
        chunk_bytes: about how much text a chunk takes; None: text that can be split comes in one.

    Raises:
        DataError: the rest of the file cannot be read at all (a truncated gzip file, say), so that
            nobody could tell how many rows are lost; or the file is not the one that was listed, or
            no longer: rows of two states of a file are never mixed.
    """
    first_row = 0
    block.check_unchanged()
    try:
        for parsed in _parsed(block, schema, max_line_bytes, chunk_bytes):
            yield from _checked(parsed, block.path, schema, first_row)
            first_row += parsed.num_rows
    except Exception:
        block.check_unchanged()  # why what was read made no sense
        raise
    block.check_unchanged()


def _parsed(
    block: Block, schema: FeatureSchema, max_line_bytes: int, chunk_bytes: int | None
) -> Iterator[Parsed]:
    if isinstance(schema.source, ParquetFormat):
        from pipeline.sources.parquet import read_parquet

        return read_parquet(block, schema)
    if isinstance(schema.source, ExamplesFormat):
        from pipeline.sources.examples import read_examples

        return read_examples(block, schema)
    return read_text(block, schema, max_line_bytes, chunk_bytes)


def _checked(parsed: Parsed, path: str, schema: FeatureSchema, first_row: int) -> Iterator[Chunk]:
    """Parsed rows without those whose values cannot be used; images by path in small chunks."""
    rows, table = parsed.num_rows, parsed.table
    by_path = any(isinstance(f, ImageColumn) and f.is_path for f in schema.features)
    step = _IMAGES_AT_ONCE if by_path else max(table.num_rows, 1)
    for start in range(0, max(table.num_rows, 1), step):
        part = table.slice(start, step)
        part, reasons = load_images(part, schema) if by_path else (part, {})
        reasons = {**bad_rows(part, schema), **reasons}
        rejects = parsed.rejects if start == 0 else []
        rejects = rejects + [
            Reject(path, int(parsed.offset[start + i]), reason, parsed.raw_of(start + i))
            for i, reason in sorted(reasons.items())
        ]
        row = parsed.row[start : start + step] + first_row
        if reasons:
            keep = np.ones(part.num_rows, bool)
            keep[list(reasons)] = False
            part, row = part.filter(pa.array(keep)), row[keep]
        # Rows rejected by the parser are counted with the first chunk.
        elsewhere = table.num_rows - min(step, table.num_rows)
        num_rows = rows - elsewhere if start == 0 else min(step, table.num_rows - start)
        yield Chunk(part, row, num_rows, rejects)
