"""How TF Serving quotes a JSON value in an error: RapidJSON's pretty writer, cut short."""

from __future__ import annotations

import contextlib
import json
import math
from decimal import Decimal

from serving.server.rest_json.rapid_json import JsonValue, members, to_bytes
from serving.server.status import ServingError, invalid_argument

__all__ = ["debug_string", "format_error", "json_type"]


def format_error(value: JsonValue, reason: str) -> ServingError:
    """The error that quotes a JSON value and says what is wrong with it."""
    return invalid_argument(f"JSON Value: {debug_string(value)} {reason}")


def json_type(value: JsonValue) -> str:
    """RapidJSON's name for the type of `value` (True and False are two types there)."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float)):
        return "Number"
    if isinstance(value, str):
        return "String"
    return "Array" if isinstance(value, list) else "Object"


_DEBUG_LIMIT = 256  # bytes; json_tensor.cc, kMaxJsonDebugStringBytes


class _TruncatedError(Exception):
    pass


def debug_string(value: JsonValue) -> str:
    """`value` as TF Serving quotes it in an error: pretty-printed, no token after 256 bytes."""
    out = bytearray()
    with contextlib.suppress(_TruncatedError):
        _write(value, "", out, 0)
    return out.decode("utf-8", "surrogateescape")


def _emit(out: bytearray, token: str) -> None:
    # The limit is looked at before a token, so the last one is whole: a 10 MB string is quoted.
    if len(out) >= _DEBUG_LIMIT:
        raise _TruncatedError
    out += to_bytes(token)


def _write(value: JsonValue, prefix: str, out: bytearray, depth: int) -> None:
    # Depth is bounded by the limit: each level costs a byte at least.
    if isinstance(value, list):
        _emit(out, prefix + "[")
        for index, element in enumerate(value):
            _write(element, ", " if index else "", out, depth + 1)
        _emit(out, "]")
    elif isinstance(value, dict):
        _emit(out, prefix + "{")
        indent = "\n" + "    " * (depth + 1)
        for index, (key, element) in enumerate(members(value)):
            _emit(out, ("," if index else "") + indent + json.dumps(key, ensure_ascii=False))
            _write(element, ": ", out, depth + 1)
        _emit(out, ("\n" + "    " * depth if value else "") + "}")
    elif isinstance(value, float):
        if not math.isfinite(value):  # RapidJSON's writer refuses these, which ends the text
            _emit(out, prefix)
            raise _TruncatedError
        _emit(out, prefix + _double(value))
    else:
        _emit(out, prefix + json.dumps(value, ensure_ascii=False))


def _double(number: float) -> str:
    """RapidJSON's shortest form (dtoa.h, Prettify): plain from 1e-6 to 1e21, else d.ddde-7."""
    if number == 0:
        return "-0.0" if math.copysign(1.0, number) < 0 else "0.0"
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    text = "".join(map(str, digits))
    point = len(text) + int(exponent)  # where the decimal point stands in the digits
    if int(exponent) >= 0 and point <= 21:
        text = text + "0" * int(exponent) + ".0"
    elif 0 < point <= 21:
        text = text[:point] + "." + text[point:]
    elif -6 < point <= 0:
        text = "0." + "0" * -point + text
    else:
        text = text[0] + ("." + text[1:] if len(text) > 1 else "") + f"e{point - 1}"
    return "-" * sign + text
