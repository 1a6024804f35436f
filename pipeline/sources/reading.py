"""A block -> Arrow tables of the schema's columns, typed, and the rows that could not be read.

Numbers are float64 with NaN for missing; texts are binary with the empty text for missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.schema import ExamplesFormat, FeatureSchema, ImageColumn, ParquetFormat
from pipeline.sources.block import Block
from pipeline.sources.chunk import Chunk, Parsed, Reject
from pipeline.sources.text import read_text
from pipeline.sources.values import bad_rows, load_images
from pipeline.values import column_rules, conform

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
            parsed = _with_constants(parsed, block, schema)
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


def _with_constants(parsed: Parsed, block: Block, schema: FeatureSchema) -> Parsed:
    """The rows with the values that their file's folders give where they have none, read as a file's texts.

    Raises:
        DataError: one is no number where the schema wants a number.
    """
    table, rules = parsed.table, column_rules(schema)
    for name, value in block.constants:
        place = table.column_names.index(name)
        try:
            one = conform(pa.table({name: [value]}), rules)[name]
        except (ValueError, pa.ArrowException) as error:
            raise DataError(
                f"a folder's value must be one of its column: {error}",
                f"{name}={value} in {block.path}",
                "Rename the folder, or leave the column out of the schema.",
            ) from None
        own = table[name]
        is_number = pa.types.is_floating(own.type)
        missing = pc.is_nan(own) if is_number else pc.equal(pc.binary_length(own), 0)
        table = table.set_column(place, name, pc.if_else(missing, one[0], own))
    return dataclasses.replace(parsed, table=table)


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
