"""Values that a reader holds in Python (a JSON line, a tf.Example, a caller's list) as Arrow columns.

The rules are those of `convert`: the values are put together by type, and each type is converted at once.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.values.convert import to_number, to_text
from pipeline.values.rules import ColumnRule

__all__ = ["from_python"]

_TYPES: tuple[tuple[Any, str], ...] = (  # the first that fits: a bool is an int, a datetime a date
    (bool, "bool"),
    (int, "int"),
    (float, "float64"),
    ((str, bytes), "text"),
    (Decimal, "decimal"),
    (datetime.date, "date"),
    ((list, tuple, np.ndarray), "list"),
    (dict, "dict"),
)


def from_python(values: Sequence[Any], rule: ColumnRule) -> pa.Array:
    """Python values of any mix of types -> what the transform takes, as `to_number` and `to_text`.

    Args:
        values: None, bool, int, float, str, bytes, Decimal, date, datetime, NumPy scalars, and lists of them.
        rule: of their column.

    Raises:
        ValueError: a value has no reading.
    """
    convert: Callable[[pa.Array, ColumnRule], pa.Array]
    convert = to_number if rule.kind == "number" else to_text
    places: dict[str, list[int]] = {}
    for i, value in enumerate(values):
        places.setdefault(_type(value), []).append(i)
    parts = []
    for kind, at in places.items():
        own = [values[i] for i in at]
        if kind == "list" and rule.kind != "number":
            parts.append(convert(_lists(own, rule), rule))
        else:
            parts.append(convert(_array(own, kind), rule))
    if not parts:
        return pa.array([], pa.float64() if rule.kind == "number" else pa.binary())
    order = np.concatenate([np.array(at, np.int64) for at in places.values()])
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(parts).take(pa.array(back))


def _type(value: Any) -> str:
    """The name of the Arrow type that holds the value and others like it."""
    if isinstance(value, np.generic):
        if isinstance(value, np.floating) and value.dtype.itemsize < 8:
            return value.dtype.name
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, datetime.datetime):  # one Arrow type a zone
        return "stamp" if value.tzinfo is None else f"stamp {value.tzinfo}"
    return next((name for kinds, name in _TYPES if isinstance(value, kinds)), type(value).__name__)


def _array(values: list[Any], kind: str) -> pa.Array:
    if kind == "text":
        return pa.array(
            [v.encode("utf-8") if isinstance(v, str) else v for v in values], pa.binary()
        )
    if kind == "int":  # beyond 64 bits too
        return pa.array([str(int(v)) for v in values], pa.string())
    if kind in ("float16", "float32"):
        return pa.array(np.array(values, kind))
    known = {"null": pa.null(), "bool": pa.bool_(), "float64": pa.float64(), "date": pa.date32()}
    if kind in known:
        return pa.array(values, known[kind])
    if kind in ("dict", "list") or not kind.startswith(("stamp", "decimal")):
        raise ValueError(f"got {str(values[0])[:80]}")
    return pa.array(values)


def _lists(values: list[Any], rule: ColumnRule) -> pa.Array:
    """Python lists -> an Arrow list of texts."""
    flat = [item for value in values for item in value]
    items = from_python(flat, rule.of_items())
    absent = pa.array([item is None for item in flat], pa.bool_())
    offsets = np.concatenate([[0], np.cumsum([len(v) for v in values])])
    present = pc.if_else(absent, None, items)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), present)
