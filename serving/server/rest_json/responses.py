"""Arrays and results to REST answers, as TF Serving's util/json_tensor.cc writes them.

Rows answer `{"predictions": [...]}`, columns `{"outputs": ...}`; a sole output has no name there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.server.rest_json.rapid_json import to_bytes
from serving.server.rest_json.requests import PredictForm
from serving.server.status import invalid_argument

__all__ = ["classify_response", "decimal", "error_response", "predict_response", "regress_response"]


def decimal(number: float, dtype: type[np.floating] = np.float32) -> str:
    """A float as TF Serving writes it: six digits if they come back the same, else all of them.

    NaN and infinity stand bare, which strict JSON parsers refuse.
    """
    value = dtype(number)
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = f"{float(value):g}"
    with np.errstate(over="ignore"):
        if dtype(text) != value:
            text = f"{float(value):.{9 if dtype is np.float32 else 17}g}"
    return text if "." in text or "e" in text else text + ".0"


def predict_response(outputs: Mapping[str, np.ndarray], form: PredictForm) -> bytes:
    """The JSON answer: one object (or, with one output, one value) a row, or one array an output.

    Raises:
        ServingError: an output without a batch axis, or batch sizes that differ (row form only).
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    writers = {name: _writer(name, array) for name, array in outputs.items()}
    if form is PredictForm.COLUMN:
        indent = "\n" + " " * (8 if len(outputs) > 1 else 4)
        texts = {
            name: _nested(array.tolist(), writers[name], indent) for name, array in outputs.items()
        }
        return to_bytes('{\n    "outputs": ' + _join_named(texts, "    ") + "\n}")
    batch_size = -1
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if batch_size not in (-1, len(array)):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} "
                f"expecting: {batch_size}"
            )
        batch_size = len(array)
    lists = {name: array.tolist() for name, array in outputs.items()}
    rows = (
        _join_named(
            {name: _nested(rows[index], writers[name]) for name, rows in lists.items()}, " " * 8
        )
        for index in range(batch_size)
    )
    between = "\n        " if len(outputs) > 1 else ""  # an object starts a line, a value does not
    body = f",{between or ' '}".join(rows)
    return to_bytes(
        '{\n    "predictions": [' + (between + body + "\n    " if body else "") + "]\n}"
    )


def _join_named(texts: Mapping[str, str], indent: str) -> str:
    if len(texts) == 1:
        return next(iter(texts.values()))
    members = f",\n{indent}    ".join(f"{_quote(name)}: {text}" for name, text in texts.items())
    return "{\n" + f"{indent}    {members}\n{indent}" + "}"


def _nested(value: Any, write: Callable[[Any], str], indent: str | None = None) -> str:
    """Lists in one line, or a line a value, `indent` being the line break before the closing one."""
    if not isinstance(value, list):
        return write(value)
    if indent is None or not value:
        return "[" + ", ".join(_nested(element, write) for element in value) + "]"
    inner = indent + "    "
    lines = f",{inner}".join(_nested(element, write, inner) for element in value)
    return f"[{inner}{lines}{indent}]"


def _writer(name: str, array: np.ndarray) -> Callable[[Any], str]:
    if array.dtype.kind == "O":
        # TF Serving's convention: an output whose name ends in _bytes holds bytes, others text.
        return _write_bytes if name.endswith("_bytes") else _write_text
    if array.dtype in (np.float32, np.float64):
        kind: type[np.floating] = np.float32 if array.dtype == np.float32 else np.float64
        return lambda value: decimal(value, kind)
    if array.dtype.kind in "iub":
        return json.dumps
    raise invalid_argument(f"Failed to write JSON value for tensor type: {array.dtype}")


def _write_bytes(value: bytes) -> str:
    return '{"b64": "' + base64.b64encode(value).decode() + '"}'


def _write_text(value: bytes) -> str:
    return _quote(value.decode("utf-8", "surrogateescape"))


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def classify_response(result: classification_pb2.ClassificationResult) -> bytes:
    """Per example a list of [label, score] pairs."""
    rows = (
        "[" + ", ".join(f"[{_quote(c.label)}, {decimal(c.score)}]" for c in one.classes) + "]"
        for one in result.classifications
    )
    return to_bytes('{\n    "results": [' + ", ".join(rows) + "\n    ]\n}")


def regress_response(result: regression_pb2.RegressionResult) -> bytes:
    """Per example one number."""
    values = ", ".join(decimal(one.value) for one in result.regressions)
    return to_bytes('{\n    "results": [' + values + "]\n}")


def error_response(message: str) -> bytes:
    """`{"error": message}`."""
    return to_bytes('{\n    "error": ' + _quote(message) + "\n}")
