"""What a caller has, lists or Arrow tables, as the arrays that a model's inputs take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, DataError
from pipeline.values import ColumnRule, from_python, to_number, to_text

__all__ = ["Column", "columns_from_table", "convert_column"]

Column = Sequence[object] | np.ndarray
"""One input's values, a row each: numbers (missing: None or NaN), text or bytes (missing: None); of a model
that describes itself also booleans, dates and lists."""

RuleOf = Callable[[str], ColumnRule | None]


def convert_column(
    name: str, column: Column, dtype: np.dtype, rule: RuleOf = lambda _: None
) -> np.ndarray:
    """A column as the array of its input's dtype; None becomes b"" or NaN.

    Args:
        name: of the input.
        column: its values.
        dtype: of the input; object is string.
        rule: how the model reads an input, asked only for values that are neither text nor bytes; None
            for a model that does not say: it gets text or bytes, nothing else.

    Raises:
        ConfigError: a value is not of that dtype, or there is no axis of rows.
    """
    try:
        if dtype.kind == "O":
            values = _objects(column)
            if _all_texts(values):
                flat = np.empty(values.size, dtype=object)
                flat[:] = [_to_bytes(value) for value in values.ravel().tolist()]
                array = flat.reshape(values.shape)
            else:
                array = _typed(column, rule(name))
        else:
            values = np.asarray(column)
            if values.dtype.kind == "O" and dtype.kind == "f":
                present = [np.nan if value is None else value for value in values.ravel().tolist()]
                values = np.array(present, dtype=dtype).reshape(values.shape)
            if values.dtype.kind not in "biufO" and values.size:
                raise TypeError(f"values of {values.dtype}")
            if dtype.kind in "iu" and values.dtype.kind == "f" and values.size:
                raise TypeError("fractions for whole numbers")
            array = values.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        wanted = "text or bytes" if dtype.kind == "O" else dtype.name
        raise ConfigError(f"column {name!r} must hold {wanted}", error) from None
    if array.ndim == 0:
        raise ConfigError(f"column {name!r} must be a sequence with a value per row", column)
    return array


def _objects(column: Column) -> np.ndarray:
    """An array of objects; lists stay lists unless the column is an array already."""
    if isinstance(column, np.ndarray) or not any(isinstance(v, (list, tuple)) for v in column):
        return np.array(column, dtype=object)
    values = np.empty(len(column), dtype=object)
    values[:] = list(column)
    return values


def _all_texts(values: np.ndarray) -> bool:
    return all(
        value is None or isinstance(value, (str, bytes)) for value in values.ravel().tolist()
    )


def _typed(column: Column, rule: ColumnRule | None) -> np.ndarray:
    """Numbers, booleans, dates and lists as the texts that a file would give."""
    values = list(column)
    if rule is None:
        for value in values:
            _to_bytes(value)
    texts = from_python(values, rule or ColumnRule())
    return np.array(texts.to_pylist(), dtype=object)


def _to_bytes(value: object) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise TypeError(f"{value!r} of type {type(value).__name__}")


def columns_from_table(
    table: pa.Table,
    input_names_and_dtypes: Mapping[str, np.dtype],
    rules: Mapping[str, ColumnRule] | None = None,
) -> dict[str, np.ndarray]:
    """A table's columns as a model's inputs; columns that are no input (a label) are left out.

    Args:
        table: raw rows.
        input_names_and_dtypes: as `PredictClient.input_dtypes` gives them; object is string.
        rules: how the model reads each input, as `PredictClient.rules` gives them; without them text
            inputs take texts and whole numbers only.

    Returns:
        For each input a [B] array: missing text is b"", a missing number NaN.

    Raises:
        ConfigError: the table lacks an input.
        DataError: a column's values cannot be read as the input's dtype.
    """
    missing = sorted(input_names_and_dtypes.keys() - set(table.column_names))
    if missing:
        raise ConfigError(
            "the table must have a column for every input of the model",
            f"missing: {', '.join(missing)}",
            f"It has: {', '.join(table.column_names)}.",
        )
    return {
        name: _from_arrow(name, table.column(name), np.dtype(dtype), (rules or {}).get(name))
        for name, dtype in input_names_and_dtypes.items()
    }


def _from_arrow(
    name: str, column: pa.ChunkedArray, dtype: np.dtype, rule: ColumnRule | None
) -> np.ndarray:
    try:
        if rule is not None and dtype.kind == "O":
            return to_text(column, rule).to_numpy(zero_copy_only=False)
        if rule is not None and dtype.kind == "f":
            return np.asarray(to_number(column, rule)).astype(dtype)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        kind = column.type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if dtype.kind == "O":
            if pa.types.is_integer(kind) or pa.types.is_null(kind):
                column = column.cast(pa.string())  # an id that was read as a number
            elif not (is_text or is_bytes):
                raise pa.ArrowInvalid(f"{kind} values for text")
            values = column.cast(pa.large_binary()).to_pylist()
            array = np.empty(len(values), dtype=object)
            array[:] = [b"" if value is None else value for value in values]
            return array
        if is_text:  # an empty field of a text file is a missing number
            column = pc.if_else(pc.equal(column, ""), None, column)
        if dtype.kind != "f" and column.null_count:
            raise pa.ArrowInvalid(f"{column.null_count} missing values, which {dtype} cannot hold")
        column = column.cast(pa.from_numpy_dtype(dtype), safe=dtype.kind != "f")
        if dtype.kind == "f":
            column = column.fill_null(float("nan"))
        return np.ascontiguousarray(column.to_numpy())
    except (pa.ArrowException, ValueError) as error:
        wanted = "text or bytes" if dtype.kind == "O" else dtype.name
        raise DataError(f"column {name!r} must be readable as {wanted}", error) from None
