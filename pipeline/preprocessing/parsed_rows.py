"""Rows parsed once: what the statistics pass read, kept in the staging directory for the encode pass.

Parsing text and hashing its cells is most of what a row costs, and both passes need it. So the first
one codes each categorical column (Arrow's dictionary: distinct values and an int32 a row), counts the
codes, and leaves the coded rows of a block in one Arrow stream; the second looks up the distinct values.
A column with another role besides (label, time, split, cross, ...) stays as it is.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import CategoricalFeature, FeatureSchema, feature_columns
from pipeline.sources import Block, Chunk, read_block
from pipeline.sources.columns import code_columns

__all__ = [
    "ParsedRows",
    "code_counts",
    "coded_columns",
]

_ROW = "row of the block"  # the last column, by place: a data set may have a column of any name
_INPUT_ROWS = b"input_rows"


def coded_columns(schema: FeatureSchema) -> tuple[str, ...]:
    """Text columns that nothing but one categorical feature reads."""
    readers = collections.Counter(c for f in schema.features for c in feature_columns(f))
    roles = {schema.time.column if schema.time else None, schema.split.key, schema.split.column}
    roles |= {schema.weight, *schema.carry}
    return tuple(
        f.column
        for f in schema.features
        if isinstance(f, CategoricalFeature) and readers[f.column] == 1 and f.column not in roles
    )


def code_counts(column: pa.DictionaryArray) -> tuple[pa.Table, int]:
    """(counts of the non-empty values as table(value, count), how many rows are empty)."""
    counts = np.bincount(np.asarray(column.indices), minlength=len(column.dictionary))
    empty = np.asarray(pc.equal(column.dictionary, b""), dtype=bool)
    seen = pa.array((counts > 0) & ~empty)
    table = pa.table({"value": column.dictionary, "count": counts.astype(np.int64)}).filter(seen)
    return table, int(counts[empty].sum())


class ParsedRows:
    """The rows of every block, from the pass that parses to the pass that encodes.

    Args:
        staging: a directory that all workers share; `parsed/` must exist in it.
        schema: resolved.
    """

    def __init__(self, staging: str, schema: FeatureSchema) -> None:
        self._directory, self._schema = Path(staging) / "parsed", schema

    def _path(self, block: Block) -> Path:
        return self._directory / f"{block.index:06d}.arrow"

    def parse(self, block: Block) -> Iterator[Chunk]:
        """Reads a block's source, a coded chunk at a time; kept once the last one was consumed."""
        columns, path = coded_columns(self._schema), self._path(block)
        beside, writer = path.with_suffix(f".{os.getpid()}"), None
        try:
            with pa.OSFile(str(beside), "wb") as sink:
                for chunk in read_block(block, self._schema):
                    table = code_columns(chunk.table, columns)
                    kept = table.append_column(_ROW, pa.array(chunk.row, pa.int64()))
                    if writer is None:
                        writer = pa.ipc.new_stream(sink, kept.schema)
                    (batch,) = kept.combine_chunks().to_batches() or [_no_rows(kept.schema)]
                    writer.write_batch(batch, {_INPUT_ROWS: str(chunk.num_rows).encode()})
                    yield Chunk(table, chunk.row, chunk.num_rows, chunk.rejects)
                if writer is not None:
                    writer.close()
            if writer is not None:
                beside.rename(path)
        finally:
            beside.unlink(missing_ok=True)

    def chunks(self, block: Block) -> Iterator[Chunk]:
        """The good rows of a block (rejects were told before): as kept, or else read again.

        They are read again where a worker encodes a block a second time, after `forget`.
        """
        path = self._path(block)
        if not path.exists():
            yield from read_block(block, self._schema)
            return
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            while True:
                try:
                    found = stream.read_next_batch_with_custom_metadata()
                except StopIteration:
                    return
                table = pa.Table.from_batches([found.batch])
                last = table.num_columns - 1
                row = table.column(last).to_numpy()
                input_rows = int(found.custom_metadata[_INPUT_ROWS])
                yield Chunk(table.remove_column(last), row, input_rows, [])

    def forget(self, block: Block) -> None:
        """Frees the disk: the block is encoded."""
        self._path(block).unlink(missing_ok=True)


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)
