"""Any Arrow column -> what the transform takes: float64 (NaN = missing) or binary (empty = missing)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import FeatureSchema, SequenceColumn
from pipeline.schema.time_format import EPOCH_SCALE, ISO, directives, expression
from pipeline.statistics.vocabulary import one_array

__all__ = [
    "as_float32",
    "code_columns",
    "conform",
    "decode_columns",
    "parse_time",
    "separators",
    "to_number",
    "to_text",
]


def separators(schema: FeatureSchema) -> dict[str, str]:
    """What joins the values of a list, by column."""
    return {f.column: f.separator for f in schema.features if isinstance(f, SequenceColumn)}


def conform(table: pa.Table, schema: FeatureSchema) -> pa.Table:
    """The schema's columns of `table`, in schema order and typed; an absent column is all missing.

    Raises:
        ValueError: a text cannot be read as a number.
    """
    numbers, joined_with = set(schema.number_columns), separators(schema)
    arrays = []
    for name in schema.columns:
        if name not in table.column_names:
            value = float("nan") if name in numbers else b""
            kind = pa.float64() if name in numbers else pa.binary()
            arrays.append(pa.repeat(pa.scalar(value, kind), table.num_rows))
        elif name in numbers:
            try:
                arrays.append(to_number(table[name]))
            except pa.ArrowException as error:
                raise ValueError(f"{name} must be a number: {str(error)[:200]}") from None
        else:
            arrays.append(to_text(table[name], joined_with.get(name, ",")))
    return pa.table(arrays, names=list(schema.columns))


def to_number(column: pa.ChunkedArray) -> pa.Array:
    """float64 with NaN for null and for the empty text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        column = pc.if_else(pc.equal(pc.binary_length(column), 0), None, column)
        if not pa.types.is_string(column.type):
            column = pc.cast(column, pa.string())
    if not pa.types.is_float64(column.type):
        column = pc.cast(column, pa.float64(), safe=False)
    return one_array(pc.fill_null(column, float("nan")))


def to_text(column: pa.ChunkedArray, separator: str = ",") -> pa.Array:
    """Binary with b"" for null; a list column is joined with `separator`, its nulls left out."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_text(column.cast(kind.value_type), separator)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        parts = [_join(c, separator) for c in column.chunks]
        column = pa.chunked_array(parts, pa.binary())
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        stamps = column if pa.types.is_timestamp(kind) else column.cast(pa.timestamp("s"))
        column = pc.strftime(stamps, format="%Y-%m-%d %H:%M:%S")
    elif not _is_text(kind):
        column = pc.cast(column, pa.string())
    return one_array(pc.fill_null(pc.cast(column, pa.binary()), b""))


def _join(lists: pa.Array, separator: str) -> pa.Array:
    """A list array -> binary, null where the list is null."""
    texts = to_text(pa.chunked_array([pc.list_flatten(lists)]))
    present = pc.invert(pc.is_null(pc.list_flatten(lists)))
    owner = pc.list_parent_indices(lists)
    texts, owner = texts.filter(present), owner.filter(present)
    sizes = np.bincount(np.asarray(owner), minlength=len(lists))
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), separator.encode())
    return pc.if_else(pc.is_null(lists), None, joined)


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def parse_time(column: pa.ChunkedArray | pa.Array, time_format: str) -> pa.Array:
    """Texts -> int64 seconds since 1970 (UTC as written), null where a text does not fit the format."""
    text = one_array(pc.cast(column, pa.string()))
    fits = pc.match_substring_regex(text, f"^(?:{expression(time_format)})$")
    if time_format in EPOCH_SCALE:
        digits = pc.replace_substring_regex(pc.if_else(fits, text, None), r"\..*", "")
        return pc.divide(pc.cast(digits, pa.int64()), EPOCH_SCALE[time_format])
    where, _ = directives(time_format)
    if time_format == "iso":
        date, clock = pc.utf8_slice_codeunits(text, 0, 10), pc.utf8_slice_codeunits(text, 11, 19)
        text, time_format = pc.binary_join_element_wise(date, clock, "T"), ISO
    text = pc.if_else(fits, text, None)
    stamps = pc.strptime(text, format=time_format, unit="s", error_is_null=True)
    if "d" in where:  # the 30th of February is accepted and becomes the 2nd of March
        start, width = where["d"]
        day = pc.binary_slice(pc.cast(text, pa.binary()), start, start + width)
        same = pc.equal(pc.day(stamps), pc.cast(pc.cast(day, pa.string()), pa.int64()))
        stamps = pc.if_else(same, stamps, None)
    return pc.cast(stamps, pa.int64())


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
