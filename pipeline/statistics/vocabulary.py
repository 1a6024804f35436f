"""Vocabularies: exact counts of values, merged partition by partition, in a deterministic order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

__all__ = [
    "Vocabulary",
    "content_bytes",
    "merge_counts",
    "one_array",
    "partition_of",
    "read_vocabulary",
    "select_vocabulary",
    "write_vocabulary",
]


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The values of a feature that have an id of their own.

    Attributes:
        values: binary [n], in id order.
        counts: int64 [n], occurrences in the training rows.
        num_distinct: distinct values before any limit.
    """

    values: pa.Array
    counts: np.ndarray
    num_distinct: int


def partition_of(values: pa.Array, num_partitions: int) -> np.ndarray:
    """A partition in [0, num_partitions) for each non-empty binary value, from its last bytes and length.

    Vectorised over Arrow's own buffers. It need only be the same for the same value and spread
    typical ids (hexadecimal, decimal) evenly enough.
    """
    if not len(values):
        return np.zeros(0, np.int64)
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset :][: len(values) + 1]
    data = np.frombuffer(values.buffers()[2], np.uint8)
    ends, starts = offsets[1:].astype(np.int64), offsets[:-1].astype(np.int64)
    last = data[ends - 1].astype(np.int64)
    second = data[np.maximum(ends - 2, starts)].astype(np.int64)
    return (last * 31 + second * 17 + (ends - starts)) % num_partitions


def content_bytes(values: pa.Array) -> bytes:
    """A binary array's lengths and bytes, whatever its buffers look like: for fingerprints."""
    if not len(values):
        return b""
    _, offset_buffer, data = values.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[values.offset :][: len(values) + 1]
    texts = b"" if data is None else bytes(memoryview(data)[offsets[0] : offsets[-1]])
    return np.diff(offsets).astype("<i8").tobytes() + texts


def merge_counts(tables: Iterable[pa.Table]) -> pa.Table:
    """table(value, count) parts -> one table with each value once."""
    tables = [t for t in tables if t.num_rows]
    if not tables:
        return pa.table({"value": pa.array([], pa.binary()), "count": pa.array([], pa.int64())})
    if len(tables) == 1:
        return tables[0].combine_chunks()
    grouped = pa.concat_tables(tables).group_by("value", use_threads=False)
    summed = grouped.aggregate([("count", "sum")])
    return summed.rename_columns({"count_sum": "count"}).select(["value", "count"])


def select_vocabulary(
    counted: pa.Table,
    *,
    min_count: int,
    max_vocab_size: int,
    base: pa.Array | None = None,
    num_distinct: int | None = None,
) -> Vocabulary:
    """Applies the limits and orders the values: most frequent first, ties in byte order.

    Args:
        counted: table(value, count), each value once.
        min_count: rarer values are dropped.
        max_vocab_size: at most this many values are kept.
        base: values of an earlier vocabulary, kept in front in their order whatever their count, so
            that their ids (and the rows of a warm-started embedding) stay what they were.
        num_distinct: distinct values before `counted` was cut, when it was.
    """
    distinct = counted.num_rows if num_distinct is None else num_distinct
    kept = counted.filter(pc.greater_equal(counted["count"], min_count))
    if base is not None and len(base):
        index = pc.index_in(base, value_set=one_array(counted["value"]))
        base_counts = pc.fill_null(pc.take(one_array(counted["count"]), index), 0)
        kept = kept.filter(pc.invert(pc.is_in(kept["value"], value_set=base)))
        room = max(max_vocab_size - len(base), 0)
    else:
        base, base_counts, room = None, None, max_vocab_size
    order = pc.sort_indices(kept, sort_keys=[("count", "descending"), ("value", "ascending")])
    kept = kept.take(order[:room]).combine_chunks()
    values = one_array(kept["value"])
    counts = one_array(kept["count"])
    if base is not None:
        values = pa.concat_arrays([base.cast(pa.binary()), values])
        counts = pa.concat_arrays([base_counts.cast(pa.int64()), counts])
    return Vocabulary(values, np.asarray(counts), distinct)


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array, whatever its chunks."""
    joined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def write_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """CSV with a header (value, count), quoted as RFC 4180 asks: line breaks and quotes survive."""
    table = pa.table({"value": vocabulary.values.cast(pa.string()), "count": vocabulary.counts})
    options = pa.csv.WriteOptions(quoting_style="needed")
    pa.csv.write_csv(table, path, options)


def read_vocabulary(path: Path, num_distinct: int) -> Vocabulary:
    """Reads what `write_vocabulary` wrote."""
    table = pa.csv.read_csv(
        path,
        # One value may be as long as a line of the input: a row must fit into a block.
        read_options=pa.csv.ReadOptions(block_size=1 << 26),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types={"value": pa.binary(), "count": pa.int64()}, strings_can_be_null=False
        ),
    )
    return Vocabulary(one_array(table["value"]), np.asarray(table["count"]), num_distinct)
