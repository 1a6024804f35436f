"""Columns as codes and back, and numbers at the door of the graph."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.statistics.vocabulary import one_array

__all__ = ["as_float32", "code_columns", "decode_columns"]


def as_float32(values: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """float32 at the door, as a serving request carries it; too large becomes infinite, quietly."""
    with np.errstate(over="ignore"):
        return np.asarray(values.to_numpy(zero_copy_only=False)).astype(np.float32)


def code_columns(table: pa.Table, columns: tuple[str, ...]) -> pa.Table:
    """The table with each of `columns` as distinct values and codes; as it is where coded already."""
    for name in columns:
        if not pa.types.is_dictionary(table[name].type):
            coded = pc.dictionary_encode(one_array(table[name]))
            table = table.set_column(table.column_names.index(name), name, coded)
    return table


def decode_columns(table: pa.Table) -> pa.Table:
    """The table with every coded column as plain values again."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table[field.name].cast(field.type.value_type)
            table = table.set_column(place, field.name, plain)
    return table
