"""The JSON reader, against what RapidJSON 1.1.0 (compiled, with TF Serving's flags) said."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.server.rest_json import rapid_json
from serving.server.rest_json.rapid_json import parse, to_bytes
from serving.server.rest_json.text import debug_string
from serving.server.status import ServingError


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "The document is empty"),
        (b" ]", "The document is empty. at offset: 1"),
        (b"{", "Missing a name for object member. at offset: 1"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a":}', "Invalid value. at offset: 5"),
        (b'{"a":1', "Missing a comma or '}' after an object member. at offset: 6"),
        (b'{"a":1,}', "Missing a name for object member. at offset: 7"),
        (b'{"a":[1,]}', "Invalid value. at offset: 8"),
        (b'{"a":[1 2]}', "Missing a comma or ']' after an array element. at offset: 8"),
        (b'{"a":01}', "Missing a comma or '}' after an object member. at offset: 6"),
        (b'{"a":-}', "Invalid value. at offset: 6"),
        (b'{"a":1.}', "Miss fraction part in number. at offset: 7"),
        (b'{"a":1e+}', "Miss exponent in number. at offset: 8"),
        (b'{"a":1e400}', "Number too big to be stored in double. at offset: 5"),
        (b'{"a":nul}', "Invalid value. at offset: 8"),
        (b'{"a":"x', "Missing a closing quotation mark in string. at offset: 7"),
        (b'{"a":"\\q"}', "Invalid escape character in string. at offset: 6"),
        (b'{"a":"\x01"}', "Invalid escape character in string. at offset: 6"),
        (b'{"a":"\\u00g0"}', "Incorrect hex digit after \\u escape in string. at offset: 6"),
        (b'{"a":"\\ud83dx"}', "The surrogate pair in string is invalid. at offset: 6"),
    ],
)
def test_errors_are_worded_as_rapidjson_words_them(text: bytes, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse(text)
    assert caught.value.message == f"JSON Parse error: {message}"


def test_what_python_would_refuse() -> None:
    value = parse(b'\xef\xbb\xbf{"a": [NaN, Inf, -Infinity, -NaN]}')
    assert isinstance(value, dict)
    numbers = value["a"]
    assert isinstance(numbers, list)
    assert math.isnan(numbers[0])  # type: ignore[arg-type]
    assert numbers[1:3] == [math.inf, -math.inf]
    assert math.isnan(numbers[3])  # type: ignore[arg-type]
    assert parse(b'{"a": 1} trailing [') == {"a": 1}
    deep = parse(b"[" * 20_000 + b"]" * 20_000)
    assert isinstance(deep, list)


def test_string_bytes_come_back_as_they_were_sent() -> None:
    value = parse(b'{"a": "\xff\xc3\xa9\\u00e9\\ud83d\\ude00\\udc00"}')
    assert isinstance(value, dict)
    text = value["a"]
    assert isinstance(text, str)
    # A lone low surrogate is encoded as it stands (RapidJSON's UTF8::Encode).
    assert to_bytes(text) == b"\xff\xc3\xa9\xc3\xa9\xf0\x9f\x98\x80\xed\xb0\x80"


def test_whole_numbers_keep_64_bits_and_become_doubles_beyond() -> None:
    value = parse(b"[9223372036854775808, -9223372036854775808, 18446744073709551616, 1.0, 1]")
    assert isinstance(value, list)
    assert value == [2**63, -(2**63), 2.0**64, 1.0, 1]
    assert [type(number) for number in value] == [int, int, float, float, int]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_JSON, st.booleans())
def test_both_readers_agree_with_the_standard_library(value: object, ascii_only: bool) -> None:
    text = json.dumps({"root": value}, ensure_ascii=ascii_only)
    body = text.encode("utf-8", "surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        return  # a lone surrogate: Python's own
    if "\\ud" in text:
        return  # ditto, escaped
    assert rapid_json._parse_iteratively(body) == {"root": value}
    assert parse(body) == {"root": value}


@given(st.binary(max_size=60) | st.text('{}[],:"\\ue+-.019 NaInfty', max_size=40).map(str.encode))
def test_no_text_crashes_the_reader(body: bytes) -> None:
    with contextlib.suppress(ServingError):  # anything else, also a RecursionError, is a crash
        parse(body)


@pytest.mark.parametrize(
    "value, text",
    [
        ({}, "{}"),
        ([], "[]"),
        ({"a": [1, "x", None, True], "b": {}}, '{\n    "a": [1, "x", null, true],\n    "b": {}\n}'),
        ([{"a": 1}], '[{\n        "a": 1\n    }]'),
        (
            [0.0, -0.0, 0.5, 1e-6, 1e-7, 1e21, 1e20],
            "[0.0, -0.0, 0.5, 0.000001, 1e-7, 1e21, 100000000000000000000.0]",
        ),
        ([1.5, math.nan, 2.0], "[1.5, "),
        (["x" * 300, 1], '["' + "x" * 300 + '"'),
    ],
)
def test_quoted_values(value: rapid_json.JsonValue, text: str) -> None:
    assert debug_string(value) == text


@pytest.mark.parametrize(
    "number,value",
    [
        (b"1e308", 1e308),
        (b"-1E+308", -1e308),
        (b"1e309", None),
        (b"0.1e309", 1e308),  # the bound is 308 and the digits of the fraction
        (b"0.01e310", 1e308),
        (b"0.1e310", None),
        (b"0.01e311", None),
        (b"1.5e309", math.inf),  # RapidJSON looks at the exponent alone
        (b"1e-400", 0.0),
        (b"1e99", 1e99),
    ],
)
def test_the_largest_exponent_grows_with_the_digits_of_the_fraction(number, value):
    body = b'{"a":%s}' % number
    if value is None:
        with pytest.raises(ServingError, match=r"too big to be stored in double\. at offset: 5"):
            parse(body)
    else:
        assert parse(body) == {"a": pytest.approx(value, rel=1e-15, abs=0.0)}
