"""The table of rules, each example through its door; docs/values.md shows the same table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.schema import DEFAULT_MISSING
from pipeline.values import ColumnRule, from_python, to_number, to_text
from pipeline.values.table import MISSING, REFUSED, RULES, Example, markdown

MARKERS = tuple(m for m in DEFAULT_MISSING if m)
TEXT, NUMBER = ColumnRule("text", markers=MARKERS), ColumnRule("number", markers=MARKERS)
EXAMPLES = [
    pytest.param(e, id=f"{rule.kind}-{i}") for rule in RULES for i, e in enumerate(rule.examples)
]


def read(example: Example, rule: ColumnRule) -> Any:
    """What the example's door makes of it; several rows, so that it stands beside others."""
    convert = to_number if rule.kind == "number" else to_text
    try:
        if example.door == "json":
            found = from_python([json.loads(example.written), None], rule)
        elif example.door == "text":
            found = convert(pa.array([example.written.encode(), b""]), rule)
        else:
            kind, value = example.written
            found = convert(pa.array([value, None], arrow_type(kind)), rule)
    except (ValueError, pa.ArrowException):
        return REFUSED
    value = found[0].as_py()
    if rule.kind == "number":
        return MISSING if math.isnan(value) else value
    return value.decode() or MISSING


def arrow_type(name: str) -> pa.DataType:
    if name.startswith("decimal128"):
        return pa.decimal128(*map(int, name[11:-1].split(",")))
    known = {"date32[day]": pa.date32(), "timestamp[us]": pa.timestamp("us")}
    known |= {"timestamp[ms]": pa.timestamp("ms"), "list<item: int32>": pa.list_(pa.int32())}
    return known.get(name) or pa.type_for_alias(name)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_read_as_the_table_says(example: Example) -> None:
    assert read(example, TEXT) == example.text
    if example.number is not None:
        assert read(example, NUMBER) == example.number


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.values[0].door == "arrow"])
def test_a_caller_s_value_is_read_as_the_typed_one(example: Example) -> None:
    kind, value = example.written
    if kind == "float":
        return  # Python has no float of 32 bits
    for rule, expected in ((TEXT, example.text), (NUMBER, example.number)):
        as_json = Example("json", json.dumps(None), MISSING)
        assert read(as_json, rule) == MISSING
        try:
            found: Any = from_python([value], rule)[0].as_py()
        except (ValueError, pa.ArrowException):
            found = REFUSED
        if found != REFUSED:
            missing = math.isnan(found) if rule is NUMBER else not found
            found = MISSING if missing else found if rule is NUMBER else found.decode()
        assert found == expected


def test_the_docs_show_the_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "values.md"
    assert page.read_text(encoding="utf-8") == markdown(), (
        "run: python -m pipeline.values.table > docs/values.md"
    )


def test_values_of_many_types_in_one_column() -> None:
    values = [None, 3, 1.5, True, "x", b"y", [1, "a"], 2**70, "NA"]
    found = from_python(values, TEXT).to_pylist()
    assert found == [b"", b"3", b"1.5", b"true", b"x", b"y", b"1,a", b"1180591620717411303424", b""]
    numbers = from_python([None, 3, 1.5, True, "7", " 2 "], NUMBER).to_pylist()
    assert repr(numbers) == "[nan, 3.0, 1.5, 1.0, 7.0, 2.0]"


def test_a_marker_that_is_a_number_is_compared_by_value() -> None:
    rule = ColumnRule("number", markers=("-1", "n/a"))
    for values in (["-1", "-1.0", " n/a ", "2"], ["-1.00000000001", "", "n/a", "2"]):
        assert repr(to_number(pa.array(values), rule).to_pylist()) == "[nan, nan, nan, 2.0]"
    assert repr(to_number(pa.array([-1, 2]), rule).to_pylist()) == "[nan, 2.0]"
    assert to_text(pa.array([-1, 2]), ColumnRule(markers=("-1",))).to_pylist() == [b"", b"2"]
