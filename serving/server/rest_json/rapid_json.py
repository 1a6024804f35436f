"""JSON as RapidJSON 1.1.0 reads it, which is what TF Serving reads with.

What differs from Python's `json`, and why this module exists:

* the error text and its byte offset ("Missing a comma or ']' after an array element.");
* NaN, Inf and Infinity may stand bare, and whatever follows the root value is ignored;
* string bytes are passed through unchecked, so invalid UTF-8 reaches the model as it was sent;
* nesting has no limit in the parser, and a number beyond a double is an error instead of infinity;
* a repeated name stays in the object, and a look-up finds the first one.

`parse` tries Python's C scanner first; only text that this one refuses, or reads differently, goes
through the state machine. Both decode bytes with `surrogateescape`: `to_bytes` gives them back.

Known differences: a double is rounded correctly, by RapidJSON (at its "normal precision") one unit
off at times; and a document of more than a million values is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from serving.server.status import invalid_argument

__all__ = ["JsonValue", "members", "parse", "to_bytes"]

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
_Members: TypeAlias = "list[tuple[str, JsonValue]]"

_MAX_VALUES = 1_000_000
"""Values of a document: 512 rows of 1,950 numbers. Each takes up to 100 bytes of memory here, and
some microseconds to read and to answer."""


class _RepeatedNames(dict[str, JsonValue]):
    """An object in which a name stands more than once: the first one counts, `members` has all."""

    def __init__(self, members: _Members) -> None:
        super().__init__(reversed(members))
        self.members = members


def _object(pairs: _Members) -> dict[str, JsonValue]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else _RepeatedNames(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_SPACE = re.compile(rb"[ \n\r\t]*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.S)
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# Read differently by Python: exponents that may overflow, integers over 64 bits, lone surrogates.
_SUSPECT = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{19}|\\u[dD][89a-fA-F]")
_ESCAPES = {b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t"}
_ESCAPES |= {c: c.decode() for c in (b'"', b"\\", b"/")}
_LITERALS: dict[bytes, tuple[bytes, JsonValue]] = {
    b"n": (b"null", None),
    b"t": (b"true", True),
    b"f": (b"false", False),
}

_START, _AFTER_OPEN, _AFTER_VALUE, _AFTER_COMMA = (
    "start",
    "after open",
    "after value",
    "after comma",
)

_INVALID = "Invalid value."
_MISS_NAME = "Missing a name for object member."
_MISS_COLON = "Missing a colon after a name of object member."
_MISS_CURLY = "Missing a comma or '}' after an object member."
_MISS_SQUARE = "Missing a comma or ']' after an array element."
_MISS_QUOTE = "Missing a closing quotation mark in string."
_BAD_ESCAPE = "Invalid escape character in string."
_BAD_HEX = "Incorrect hex digit after \\u escape in string."
_BAD_SURROGATE = "The surrogate pair in string is invalid."
_TOO_BIG = "Number too big to be stored in double."


class _ParseError(Exception):
    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.reason, self.offset = reason, offset


def to_bytes(text: str) -> bytes:
    """The bytes that a parsed string was sent as."""
    return text.encode("utf-8", "surrogateescape")


def _num_marks(body: bytes) -> int:
    """No document holds more values than that; texts, which may hold commas too, are counted in."""
    return sum(map(body.count, (b",", b"[", b"{")))


def members(value: dict[str, JsonValue]) -> Iterable[tuple[str, JsonValue]]:
    """All names and values of an object in the order sent, repeated names too."""
    return value.members if isinstance(value, _RepeatedNames) else value.items()


def parse(body: bytes) -> JsonValue:
    """Parses the first JSON value of `body`; the rest is ignored, as TF Serving ignores it.

    Raises:
        ServingError: INVALID_ARGUMENT "JSON Parse error: ... at offset: N", in RapidJSON's words;
            or more values than this server reads.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    if _num_marks(body) > _MAX_VALUES < _num_marks(_STRING.sub(b"", body)):
        raise invalid_argument(
            f"The development server reads at most {_MAX_VALUES:,} JSON values a request; TF "
            "Serving has no such limit. Send fewer rows a request, or use gRPC."
        )
    text = body.decode("utf-8", "surrogateescape").lstrip(" \n\r\t")
    if text.startswith("{") and not _SUSPECT.search(body):
        try:
            value: JsonValue = _DECODER.raw_decode(text)[0]
            return value
        except (ValueError, RecursionError):  # what Python refuses, RapidJSON may take or word
            pass
    try:
        return _parse_iteratively(body)
    except _ParseError as fault:
        raise invalid_argument(
            f"JSON Parse error: {fault.reason} at offset: {fault.offset}"
        ) from None


def _parse_iteratively(body: bytes) -> JsonValue:
    """RapidJSON's state machine (reader.h, IterativeParse): no recursion, so no depth limit."""
    at = 0
    for mark in (b"\xef", b"\xbb", b"\xbf"):  # a byte order mark, skipped byte by byte
        at += body[at : at + 1] == mark
    # What is open: its items, or names and values; whether it is an object; its own name.
    stack: list[tuple[list[Any], bool, str]] = []
    key, state, in_object = "", _START, False
    while True:
        at = _skip_space(body, at)
        char = body[at : at + 1]
        container, in_object, _ = stack[-1] if stack else (None, False, "")
        if state == _START and char in (b"", b"\0", b"]", b"}", b",", b":"):
            raise _ParseError("The document is empty.", at)
        if state == _AFTER_VALUE and char == b",":
            at, state = at + 1, _AFTER_COMMA
            continue
        closes = char == (b"}" if in_object else b"]")
        if container is not None and closes and state in (_AFTER_OPEN, _AFTER_VALUE):
            value: Any = _object(container) if in_object else container
            key = stack.pop()[2]
            at += 1
        elif state == _AFTER_VALUE:
            raise _ParseError(_MISS_CURLY if in_object else _MISS_SQUARE, at)
        else:
            if in_object:
                key, at = _parse_key(body, at)
            if (char := body[at : at + 1]) in (b"[", b"{"):
                stack.append(([], char == b"{", key))
                at, state = at + 1, _AFTER_OPEN
                continue
            value, at = _parse_scalar(body, at, char)
        if not stack:
            return value
        parent, in_object, _ = stack[-1]
        parent.append((key, value) if in_object else value)
        state = _AFTER_VALUE


def _parse_key(body: bytes, at: int) -> tuple[str, int]:
    """A member's name and colon; returns the name and where the value starts."""
    if body[at : at + 1] != b'"':
        raise _ParseError(_MISS_NAME, at)
    key, at = _parse_string(body, at)
    at = _skip_space(body, at)
    if body[at : at + 1] != b":":
        raise _ParseError(_MISS_COLON, at)
    return key, _skip_space(body, at + 1)


def _skip_space(body: bytes, at: int) -> int:
    match = _SPACE.match(body, at)
    return match.end() if match else at


def _parse_scalar(body: bytes, at: int, char: bytes) -> tuple[JsonValue, int]:
    if char == b'"':
        return _parse_string(body, at)
    if char in _LITERALS:
        literal, value = _LITERALS[char]
        return value, _consume(body, at, literal)
    return _parse_number(body, at)


def _consume(body: bytes, at: int, literal: bytes) -> int:
    for expected in literal:
        if at >= len(body) or body[at] != expected:
            raise _ParseError(_INVALID, at)
        at += 1
    return at


def _parse_number(body: bytes, start: int) -> tuple[int | float, int]:
    at = start + (body[start : start + 1] == b"-")
    sign = -1 if at > start else 1
    char = body[at : at + 1]
    if char == b"N":
        return math.nan, _consume(body, at, b"NaN")
    if char == b"I":
        at = _consume(body, at, b"Inf")
        if body[at : at + 1] == b"i":
            at = _consume(body, at, b"inity")
        return sign * math.inf, at
    match = _NUMBER.match(body, start)
    if match is None:
        raise _ParseError(_INVALID, at)
    text, end = match.group(), match.end()
    # The pattern stops before a fraction or an exponent that has no digit; RapidJSON says which.
    if body[end : end + 1] == b"." and b"." not in text and b"e" not in text.lower():
        raise _ParseError("Miss fraction part in number.", end + 1)
    if body[end : end + 1] in (b"e", b"E") and b"e" not in text.lower():
        end += 1
        end += body[end : end + 1] in (b"+", b"-")
        raise _ParseError("Miss exponent in number.", end)
    mantissa, _, exponent = text.lower().partition(b"e")
    if b"." in mantissa or exponent:
        # RapidJSON looks at the exponent alone: 308, and one more for each digit of the fraction.
        if len(exponent) > 2 and int(exponent[:9]) > 308 + len(mantissa.partition(b".")[2]):
            raise _ParseError(_TOO_BIG, start)
        return float(text), end
    if len(text) < 21 and -(2**63) <= int(text) < 2**64:
        return int(text), end
    if math.isinf(number := float(text)):
        raise _ParseError(_TOO_BIG, start)
    return number, end


def _parse_string(body: bytes, at: int) -> tuple[str, int]:
    parts: list[str] = []
    at += 1  # the opening quote
    while True:
        match = _PLAIN.match(body, at)
        end = match.end() if match else at
        parts.append(body[at:end].decode("utf-8", "surrogateescape"))
        at = end
        char = body[at : at + 1]
        if char == b'"':
            return "".join(parts), at + 1
        if char == b"\\":
            text, at = _parse_escape(body, at)
            parts.append(text)
        else:
            raise _ParseError(_MISS_QUOTE if char in (b"", b"\0") else _BAD_ESCAPE, at)


def _parse_escape(body: bytes, at: int) -> tuple[str, int]:
    letter = body[at + 1 : at + 2]
    if letter in _ESCAPES:
        return _ESCAPES[letter], at + 2
    if letter != b"u":
        raise _ParseError(_BAD_ESCAPE, at)
    code, end = _hex4(body, at + 2, at), at + 6
    if 0xD800 <= code <= 0xDBFF:
        if body[end : end + 2] != b"\\u":
            raise _ParseError(_BAD_SURROGATE, at)
        low, end = _hex4(body, end + 2, at), end + 6
        if not 0xDC00 <= low <= 0xDFFF:
            raise _ParseError(_BAD_SURROGATE, at)
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
    # A lone low surrogate is encoded as it stands, in three bytes that are not valid UTF-8.
    return chr(code).encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"), end


def _hex4(body: bytes, at: int, escape_at: int) -> int:
    digits = body[at : at + 4]
    if len(digits) < 4 or not all(digit in b"0123456789abcdefABCDEF" for digit in digits):
        raise _ParseError(_BAD_HEX, escape_at)
    return int(digits, 16)
