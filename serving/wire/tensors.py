"""TensorProto to numpy and back, with the rules of TensorFlow's C++ `Tensor::FromProto`.

`tf.make_ndarray` is stricter than TF Serving's parser (it refuses surplus values) and trusts the
shape that is stated (a few bytes may ask for terabytes); a server needs the parser's own rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

__all__ = [
    "MAX_RANK",
    "TF_MAX_RANK",
    "dtype_name",
    "numpy_dtype",
    "parse_tensor",
    "tensor_enum",
    "tensor_proto",
]

MAX_RANK = 64
"""Dimensions of a NumPy array, at most."""
TF_MAX_RANK = 254
"""Dimensions of a TensorFlow tensor, at most."""

_MAX_FILLED_BYTES = 16 * 1024 * 1024
"""What a few bytes may grow to: a proto may name a huge shape and one value to fill it with. TF
Serving tries to allocate that. Tensors that are sent in full are as large as a request may be."""


@dataclass(frozen=True)
class _Layout:
    """Where a TensorProto keeps the values of one dtype."""

    field: str
    numpy: np.dtype
    name: str  # DataTypeString
    bits: np.dtype | None = None  # half and bfloat16 travel as bit patterns

    @property
    def is_string(self) -> bool:
        return self.numpy.kind == "O"


_LAYOUTS: dict[int, _Layout] = {
    types_pb2.DT_FLOAT: _Layout("float_val", np.dtype(np.float32), "float"),
    types_pb2.DT_DOUBLE: _Layout("double_val", np.dtype(np.float64), "double"),
    types_pb2.DT_INT64: _Layout("int64_val", np.dtype(np.int64), "int64"),
    types_pb2.DT_INT32: _Layout("int_val", np.dtype(np.int32), "int32"),
    types_pb2.DT_INT16: _Layout("int_val", np.dtype(np.int16), "int16"),
    types_pb2.DT_INT8: _Layout("int_val", np.dtype(np.int8), "int8"),
    types_pb2.DT_UINT16: _Layout("int_val", np.dtype(np.uint16), "uint16"),
    types_pb2.DT_UINT8: _Layout("int_val", np.dtype(np.uint8), "uint8"),
    types_pb2.DT_UINT32: _Layout("uint32_val", np.dtype(np.uint32), "uint32"),
    types_pb2.DT_UINT64: _Layout("uint64_val", np.dtype(np.uint64), "uint64"),
    types_pb2.DT_BOOL: _Layout("bool_val", np.dtype(np.bool_), "bool"),
    types_pb2.DT_STRING: _Layout("string_val", np.dtype(object), "string"),
    types_pb2.DT_HALF: _Layout("half_val", np.dtype(np.float16), "half", np.dtype(np.uint16)),
    types_pb2.DT_BFLOAT16: _Layout(
        "half_val", np.dtype(tf.bfloat16.as_numpy_dtype), "bfloat16", np.dtype(np.uint16)
    ),
}


def dtype_name(dtype: int) -> str:
    """TensorFlow's C++ name of a DataType ("float", where Python says float32)."""
    layout = _LAYOUTS.get(dtype)
    return layout.name if layout else types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def numpy_dtype(dtype: int) -> np.dtype | None:
    """The numpy dtype of a DataType (object for strings); None where this server has none."""
    layout = _LAYOUTS.get(dtype)
    return layout.numpy if layout else None


def parse_tensor(proto: tensor_pb2.TensorProto) -> np.ndarray | None:
    """The array that `proto` describes, of the shape that it names; None when it describes none.

    As in C++: too few values are filled up with the last one, none at all with zero (or ""),
    surplus values are dropped, `tensor_content` must fit the shape to the byte, and `unknown_rank`
    is not looked at (without dimensions it is a scalar).
    """
    layout = _LAYOUTS.get(proto.dtype)
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if layout is None or len(shape) > MAX_RANK:
        return None
    if any(size < 0 for size in shape):
        return None
    count = math.prod(shape)
    try:
        if proto.tensor_content and count:
            return _from_content(proto.tensor_content, layout, shape, count)
        values = getattr(proto, layout.field)
        item_bytes = 32 if layout.is_string else layout.numpy.itemsize
        if count > len(values) and count * item_bytes > _MAX_FILLED_BYTES:
            return None
        return _from_values(values, layout, count).reshape(shape)
    except ValueError:  # no element, and other dimensions that together are beyond numpy
        return None


def _from_values(values: Sequence, layout: _Layout, count: int) -> np.ndarray:
    flat = np.empty(count, dtype=layout.bits or layout.numpy)
    known = min(len(values), count)
    if known:
        # As C++ casts: an int_val of 300 in a uint8 tensor keeps its low bits.
        source = values[:known]
        flat[:known] = (
            np.array(source, dtype=np.int64).astype(flat.dtype)
            if layout.field in ("int_val", "half_val")
            else source
        )
        flat[known:] = flat[known - 1]
    else:
        flat[:] = b"" if layout.is_string else 0
    return flat.view(layout.numpy) if layout.bits else flat


def _from_content(
    content: bytes, layout: _Layout, shape: Sequence[int], count: int
) -> np.ndarray | None:
    if layout.is_string:
        return _decode_strings(content, shape, count)
    if len(content) != count * layout.numpy.itemsize:
        return None
    if layout.numpy == np.bool_:  # any byte may come; a bool array must hold 0 and 1 only
        return (np.frombuffer(content, dtype=np.uint8) != 0).reshape(shape)
    return np.frombuffer(content, dtype=layout.numpy).reshape(shape)


def _decode_strings(content: bytes, shape: Sequence[int], count: int) -> np.ndarray | None:
    """Strings in `tensor_content`: all lengths as varints, then all bytes (DecodeStringList)."""
    lengths: list[int] = []
    at = 0
    if count > len(content):  # each length takes a byte at least
        return None
    for _ in range(count):
        length, shift = 0, 0
        while True:
            if at >= len(content) or shift > 28:
                return None
            byte = content[at]
            at, length, shift = at + 1, length | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        lengths.append(length)
    if at + sum(lengths) != len(content):
        return None
    flat = np.empty(count, dtype=object)
    for index, length in enumerate(lengths):
        flat[index] = content[at : at + length]
        at += length
    return flat.reshape(shape)


def tensor_enum(array: np.ndarray) -> int:
    """The DataType of an array; objects and texts are strings."""
    is_text = array.dtype.kind in "OSU"
    return types_pb2.DT_STRING if is_text else tf.as_dtype(array.dtype).as_datatype_enum


def tensor_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """`array` in the typed fields, TF Serving's default form of an answer (AsProtoField).

    Raises:
        TypeError: TensorProto has no field for this dtype here.
    """
    array = np.asarray(array)
    dtype = tensor_enum(array)
    layout = _LAYOUTS.get(dtype)
    if layout is None:
        raise TypeError(f"no TensorProto field for dtype {array.dtype}")
    proto = tensor_pb2.TensorProto(dtype=dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = array.ravel()
    if layout.is_string:
        proto.string_val.extend(
            value.encode() if isinstance(value, str) else bytes(value) for value in flat.tolist()
        )
    else:
        getattr(proto, layout.field).extend(
            (flat.view(layout.bits) if layout.bits else flat).tolist()
        )
    return proto
