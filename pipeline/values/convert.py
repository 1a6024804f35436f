"""Arrow columns of any type -> what the transform takes: float64 (NaN = missing) or binary (b"" = missing).

Vectorised: a row costs no Python. What has no single reading raises ValueError, which a reader turns into
a reject once it has cut the chunk down to the row.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.statistics.vocabulary import one_array
from pipeline.values.lists import join_lists
from pipeline.values.rules import BOOLEANS, ColumnRule
from pipeline.values.times import write_times

__all__ = ["canonical", "conform", "is_text", "naming_column", "to_number", "to_text"]

_ANY_NUMBER, _ANY_TEXT = ColumnRule("number"), ColumnRule()
_EXACT = {16: 2.0**11, 32: 2.0**24, 64: 2.0**53}
_SPELLED = pa.array([k.encode() for k in (*BOOLEANS, "true", "false")], pa.binary())
_AS_NUMBER = pa.array(
    [b"1" if v == "true" else b"0" for v in (*BOOLEANS.values(), "true", "false")]
)


def conform(table: pa.Table, rules: Mapping[str, ColumnRule]) -> pa.Table:
    """The columns of `rules`, in their order and typed; an absent column is all missing.

    Raises:
        ValueError: a value has no reading; the message begins with its column.
    """
    arrays = []
    for name, rule in rules.items():
        number = rule.kind == "number"
        if name not in table.column_names:
            value = pa.scalar(float("nan")) if number else pa.scalar(b"", pa.binary())
            arrays.append(pa.repeat(value, table.num_rows))
            continue
        with naming_column(name, rule):
            arrays.append((to_number if number else to_text)(table[name], rule))
    return pa.table(arrays, names=list(rules))


@contextlib.contextmanager
def naming_column(name: str, rule: ColumnRule) -> Iterator[None]:
    """Errors inside become a ValueError that names the column and what it takes."""
    try:
        yield
    except UnicodeError:
        raise
    except (ValueError, pa.ArrowException) as error:
        wanted = "a number" if rule.kind == "number" else "text, a number or a list of them"
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{name} must be {wanted}: {first}") from None


def is_text(kind: pa.DataType) -> bool:
    """Whether Arrow holds the values as texts or bytes."""
    t = pa.types
    return any(
        check(kind)
        for check in (t.is_string, t.is_large_string, t.is_binary, t.is_large_binary,
                      t.is_fixed_size_binary, t.is_string_view, t.is_binary_view)
    )  # fmt: skip


# ------------------------------------------------------------------------------------- numbers


def to_number(column: pa.ChunkedArray | pa.Array, rule: ColumnRule = _ANY_NUMBER) -> pa.Array:
    """float64 [n] with NaN for what is missing.

    Raises:
        ValueError: a value is no number.
    """
    column = one_array(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if is_text(kind):
        column = _texts_to_number(column.cast(pa.binary()), rule)
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.string()).cast(pa.float64())  # rounded once, as a text is
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.int8()).cast(pa.float64())
    elif not (pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"got a value of type {kind}")
    if not pa.types.is_float64(column.type):
        column = pc.cast(column, pa.float64(), safe=False)
    column = pc.fill_null(column, float("nan"))
    return _without_markers(column, rule)


def _texts_to_number(texts: pa.Array, rule: ColumnRule) -> pa.Array:
    """Decimal texts with blanks around them -> float64; booleans are 1 and 0."""
    trimmed = pc.utf8_trim_whitespace(texts.cast(pa.string())).cast(pa.binary())
    missing = pc.equal(pc.binary_length(trimmed), 0)
    if rule.markers:
        markers = pa.array([m.strip().encode() for m in rule.markers], pa.binary())
        missing = pc.or_(missing, pc.is_in(trimmed, value_set=markers))
    present = pc.if_else(missing, None, trimmed)
    if not rule.verbatim:
        spelled = pc.index_in(present, value_set=_SPELLED)
        if spelled.null_count < len(spelled):
            present = pc.coalesce(_AS_NUMBER.take(spelled), present)
    try:
        return present.cast(pa.string()).cast(pa.float64())
    except pa.ArrowInvalid as error:
        found = re.search(r"Failed to parse string: '(.*)' as", str(error), re.DOTALL)
        raise ValueError(f"got {found[1][:80]!r}" if found else str(error)) from None


def _without_markers(numbers: pa.Array, rule: ColumnRule) -> pa.Array:
    """NaN for a number that the schema calls missing; compared as float32, as the graph sees it."""
    if not rule.numeric_markers:
        return numbers
    with np.errstate(over="ignore"):
        absent = np.isin(
            np.asarray(numbers).astype(np.float32), np.array(rule.numeric_markers, np.float32)
        )
    return pc.if_else(pa.array(absent), float("nan"), numbers) if absent.any() else numbers


# ------------------------------------------------------------------------------------- texts


def to_text(column: pa.ChunkedArray | pa.Array, rule: ColumnRule = _ANY_TEXT) -> pa.Array:
    """Binary [n] with b"" for what is missing; see the table of `pipeline.values.table`.

    Raises:
        ValueError: a value has no text of its own (an infinite number, a whole number that its type
            rounds, a record).
    """
    column = one_array(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    texts = _written(column, rule)
    return canonical(pc.fill_null(texts.cast(pa.binary()), b""), rule)


def _written(column: pa.Array, rule: ColumnRule) -> pa.Array:
    """A text of each value, null where it is missing."""
    kind, t = column.type, pa.types
    if is_text(kind):
        return column
    if t.is_null(kind) or t.is_boolean(kind) or t.is_integer(kind):
        return column.cast(pa.string())
    if t.is_floating(kind):
        return _floats_to_text(column, exact=rule.time_format is None)
    if t.is_decimal(kind):
        return _decimals_to_text(column)
    if t.is_timestamp(kind) or t.is_date(kind):
        return write_times(column, rule.time_format)
    is_list = t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind)
    if is_list and rule.kind != "item":
        flat = pc.list_flatten(column)
        items = to_text(flat, rule.of_items())
        return join_lists(column, items, pc.is_null(flat), rule)
    if t.is_time(kind):
        return column.cast(pa.string())
    remedy = "; name one of its fields, as in device.os" if t.is_struct(kind) else ""
    raise ValueError(f"got a value of type {str(kind)[:80]}{remedy}")


def canonical(texts: pa.Array, rule: ColumnRule) -> pa.Array:
    """The same texts with null markers as b"" and each boolean in one spelling; binary [n]."""
    known, replaced = rule.alias_arrays
    if not len(known):
        return texts
    found = pc.index_in(texts, value_set=known)
    if found.null_count == len(found):
        return texts
    return pc.coalesce(replaced.take(found), texts)


def _floats_to_text(column: pa.Array, *, exact: bool) -> pa.Array:
    """Whole numbers as integers, others with the fewest digits that read back, never with an exponent."""
    wide = pc.cast(column, pa.float64())
    wide = pc.if_else(pc.is_nan(wide), None, wide)
    if pc.any(pc.is_inf(wide)).as_py():
        raise ValueError("got an infinite number")
    limit = _EXACT[column.type.bit_width] if exact else 2.0**63
    size = pc.abs(wide)
    if (pc.max(size).as_py() or 0.0) >= limit:
        first = wide.filter(pc.greater_equal(size, limit))[0].as_py()
        raise ValueError(
            f"got {first:.0f} as {column.type}, which rounds whole numbers from {limit:.0f} on; "
            "store it as an integer or as text"
        )
    whole = pc.equal(pc.floor(wide), wide)
    integers = pc.cast(pc.if_else(whole, wide, 0.0), pa.int64()).cast(pa.string())
    if pc.all(whole).as_py() in (True, None):
        return integers
    texts = pc.if_else(whole, integers, pc.cast(column, pa.string()))
    return _without_exponent(pc.if_else(pc.is_null(wide), None, texts), column)


def _without_exponent(texts: pa.Array, column: pa.Array) -> pa.Array:
    """Replaces texts like 1e-7; rare, so it goes by the distinct value."""
    has = pc.fill_null(pc.match_substring(texts, "e"), False)
    if not pc.any(has).as_py():
        return texts
    own = np.dtype(f"float{column.type.bit_width}").type
    distinct = column.filter(has).unique()
    plain = [np.format_float_positional(own(v), trim="-") for v in distinct.to_pylist()]
    index = pc.index_in(column, value_set=distinct)
    return pc.coalesce(pc.if_else(has, pa.array(plain).take(index), None), texts)


def _decimals_to_text(column: pa.Array) -> pa.Array:
    """Without trailing zeros after the point: 12.00 is 12, 12.50 is 12.5."""
    coded = pc.dictionary_encode(column)
    texts = [_decimal(value) for value in coded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(coded.indices)


def _decimal(value: Any) -> str:
    text = format(Decimal(value), "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
