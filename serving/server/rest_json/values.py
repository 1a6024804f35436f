"""Nested JSON lists to arrays, by the rules and in the words of TF Serving's json_tensor.cc."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tensorflow.core.framework import types_pb2

from serving.server.rest_json.rapid_json import JsonValue, to_bytes
from serving.server.rest_json.text import debug_string, format_error, json_type
from serving.server.status import ServingError, invalid_argument, unimplemented
from serving.wire.tensors import MAX_RANK, TF_MAX_RANK, dtype_name, numpy_dtype

__all__ = ["JsonColumn", "decode_base64", "is_base64_object", "is_object"]

_BASE64 = re.compile(r"(?P<digits>[A-Za-z0-9+/\s]*)(?P<padding>[=.\s]*)", re.ASCII)


@dataclass
class JsonColumn:
    """One input while its rows arrive: the shape of a row, and all values flat."""

    name: str
    dtype: int
    row_shape: tuple[int, ...] | None = None
    row_size: int = 0
    values: list[object] = field(default_factory=list)

    def add(self, item: JsonValue) -> None:
        """One more row.

        Raises:
            ServingError: a value of another type, a ragged list, or a shape unlike the first row's.
        """
        shape, before = tuple(_dense_shape(item)), len(self.values)
        if len(shape) > TF_MAX_RANK:  # `array` refuses it: deeper, the next line would recurse
            self.row_shape = shape
            return
        _fill(item, 0, shape, self.dtype, self.values)
        size = len(self.values) - before
        if self.row_shape is None:
            self.row_shape, self.row_size = shape, size
        elif size != self.row_size:
            raise invalid_argument(f"Expecting tensor size: {self.row_size} but got: {size}")
        elif shape != self.row_shape:
            raise invalid_argument(
                f"Expecting shape {_shape_text(self.row_shape)} but got: {_shape_text(shape)}"
            )

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """All values, in the input's dtype and in `shape`.

        Raises:
            ServingError: more dimensions than a tensor, or an array, may have.
        """
        if len(shape) > TF_MAX_RANK:
            raise invalid_argument(f"tensor parsing error: {self.name}")
        if len(shape) > MAX_RANK:
            raise invalid_argument(
                f"tensor parsing error: {self.name} has {len(shape)} dimensions; the development "
                f"server holds {MAX_RANK}, TF Serving {TF_MAX_RANK}"
            )
        # A name that stood twice in a row has left more values than the shape takes.
        values = self.values[: math.prod(shape)]
        dtype = numpy_dtype(self.dtype)
        if dtype is not None and dtype.kind == "O":
            flat = np.empty(len(values), dtype=object)
            flat[:] = values
            return flat.reshape(shape)
        if self.dtype in (types_pb2.DT_INT8, types_pb2.DT_UINT8, types_pb2.DT_INT16):
            return np.array(values, dtype=np.int64).astype(dtype).reshape(shape)  # C++'s cast
        with np.errstate(over="ignore"):  # a number beyond float32 is infinity, as in C++
            return (
                np.array(values, dtype=np.float64 if not values else None)
                .astype(dtype)
                .reshape(shape)
            )


def _dense_shape(value: JsonValue) -> Iterator[int]:
    """The shape that the first element of each level promises; `_fill` checks the others."""
    while isinstance(value, list):
        yield len(value)
        if not value:
            return
        value = value[0]


def _fill(
    value: JsonValue, level: int, shape: tuple[int, ...], dtype: int, values: list[object]
) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {debug_string(value)} found at incorrect level: {level + 1} in the "
                f"JSON DOM. Expected at level: {len(shape)}"
            )
        values.append(_scalar(value, dtype))
        return
    if level >= len(shape):
        raise invalid_argument(
            f"Encountered list at unexpected level: {level} expected < {len(shape)}"
        )
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for element in value:
        _fill(element, level + 1, shape, dtype, values)


# What each integer dtype accepts is RapidJSON's IsInt, IsInt64 and so on, not its own range.
_INTEGER_RANGES: dict[int, tuple[int, int]] = {
    types_pb2.DT_INT32: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT16: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_UINT8: (-(2**31), 2**31 - 1),
    types_pb2.DT_INT64: (-(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: (0, 2**32 - 1),
    types_pb2.DT_UINT64: (0, 2**64 - 1),
}


def _scalar(value: JsonValue, dtype: int) -> object:
    if isinstance(value, dict):
        if dtype == types_pb2.DT_STRING:
            return decode_base64(value)
        raise _type_error(value, dtype)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if dtype in (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE):
        if is_number:
            return float(value)  # type: ignore[arg-type]
    elif dtype == types_pb2.DT_STRING:
        if isinstance(value, str):
            return to_bytes(value)
    elif dtype == types_pb2.DT_BOOL:
        if isinstance(value, bool):
            return value
    elif dtype in _INTEGER_RANGES:
        low, high = _INTEGER_RANGES[dtype]
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
    else:
        raise unimplemented(
            f"Conversion of JSON Value: {debug_string(value)} to type: {dtype_name(dtype)}"
        )
    raise _type_error(value, dtype)


def _type_error(value: JsonValue, dtype: int) -> ServingError:
    return invalid_argument(
        f"JSON Value: {debug_string(value)} Type: {json_type(value)} "
        f"is not of expected type: {dtype_name(dtype)}"
    )


def is_base64_object(value: JsonValue) -> bool:
    """Whether `value` is `{"b64": "<text>"}` and nothing else: bytes, not a named input."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def is_object(value: JsonValue) -> bool:
    """Whether `value` names inputs or features: an object, and not bytes."""
    return isinstance(value, dict) and not is_base64_object(value)


def decode_base64(value: dict[str, JsonValue]) -> bytes:
    """The bytes of a `{"b64": ...}` object, by the rules of absl's Base64Unescape.

    Padding is whole or missing, may be dots, and white space may stand anywhere.

    Raises:
        ServingError: INVALID_ARGUMENT for another object or a text that is not base64.
    """
    text = value.get("b64")
    if not is_base64_object(value) or not isinstance(text, str):
        raise format_error(value, "not formatted correctly for base64 data")
    match = _BASE64.fullmatch(text)
    if match is not None:
        digits, padding = ("".join(match[part].split()) for part in ("digits", "padding"))
        missing = -len(digits) % 4
        if missing < 3 and len(padding) in (0, missing):  # a single digit is no byte
            return base64.b64decode(digits + "=" * missing)
    raise invalid_argument("Unable to base64 decode")


def _shape_text(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
