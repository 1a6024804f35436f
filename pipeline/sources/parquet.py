"""Row groups of Parquet -> rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from pipeline.paths import open_for_reading
from pipeline.schema import FeatureSchema
from pipeline.sources.block import Block
from pipeline.sources.chunk import Parsed, Reject, empty_table
from pipeline.values import ColumnRule, column_rules, conform

__all__ = ["flatten_records", "parquet_columns", "read_parquet"]

_CHUNK_ROWS = 1 << 17


def parquet_columns(fields: pa.Schema) -> list[str]:
    """The columns of a file, the fields of a record as `device.os`."""
    return flatten_records(fields.empty_table()).column_names


def flatten_records(table: pa.Table) -> pa.Table:
    """The table with every record (struct) in place of its fields, named `device.os`."""
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return table


def read_parquet(block: Block, schema: FeatureSchema) -> Iterator[Parsed]:
    """The rows of a block; a row group that cannot be read is one reject with its row count."""
    import pyarrow.parquet as pq

    rules = column_rules(schema)
    with open_for_reading(block.path) as stream:
        parquet = pq.ParquetFile(stream, page_checksum_verification=True)
        sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
        for group in range(block.start, block.end):
            first, num_rows = sum(sizes[:group]), sizes[group]
            try:
                table = flatten_records(parquet.read_row_group(group, columns=list(schema.columns)))
            except (OSError, pa.ArrowException) as error:
                reason = f"row group {group} cannot be read: {str(error).splitlines()[0][:200]}"
                bad = Reject(block.path, first, reason, b"", num_rows)
                nothing = np.zeros(0, np.int64)
                yield Parsed(empty_table(schema), nothing, num_rows, [bad], nothing)
                continue
            for start in range(0, num_rows, _CHUNK_ROWS):
                yield _conform(
                    table.slice(start, _CHUNK_ROWS), schema, rules, block.path, first + start
                )


def _conform(
    table: pa.Table,
    schema: FeatureSchema,
    rules: Mapping[str, ColumnRule],
    path: str,
    first: int,
) -> Parsed:
    """A table as the schema's types; rows with a value that has no reading are rejected."""
    tables: list[pa.Table] = []
    good: list[np.ndarray] = []
    rejects: list[Reject] = []

    def rows(low: int, high: int) -> None:
        part = table.slice(low, high - low)
        try:
            tables.append(conform(part, rules))
        except (ValueError, pa.ArrowException) as error:
            if high - low == 1:
                raw = repr(part.to_pylist()[0]).encode()[:4096]
                reason = str(error).splitlines()[0][:300]
                rejects.append(Reject(path, first + low, reason, raw))
                return
            middle = (low + high) // 2
            rows(low, middle)
            rows(middle, high)
            return
        good.append(np.arange(low, high))

    rows(0, table.num_rows)
    index = np.concatenate(good or [np.zeros(0, np.int64)])
    joined = pa.concat_tables(tables or [empty_table(schema)])
    return Parsed(joined, index, table.num_rows, rejects, first + index)
