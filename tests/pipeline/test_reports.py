"""Reports come back as they were, and in no other way."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from pipeline.reports import Report, finite_or_none


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Inner(Report):
    name: str
    value: float | None


@dataclasses.dataclass(frozen=True)
class Outer(Report):
    count: int
    colour: Colour
    parts: tuple[Inner, ...]
    by_name: Mapping[str, Inner] = dataclasses.field(default_factory=dict)
    note: str = ""


WHOLE = Outer(3, Colour.RED, (Inner("a", 0.5), Inner("b", None)), {"c": Inner("c", 1.0)}, "n")


@pytest.mark.parametrize("report", [WHOLE, Outer(0, Colour.RED, ())])
def test_a_report_comes_back(report: Outer) -> None:
    assert Outer.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_field_with_its_default_is_left_out() -> None:
    assert Outer(0, Colour.RED, ()).to_json() == {"count": 0, "colour": "red", "parts": []}


@pytest.mark.parametrize(
    "change, phrase",
    [
        ({"count": None}, "count"),
        ({"count": "3"}, "count"),
        ({"count": True}, "count"),
        ({"colour": "blue"}, "colour"),
        ({"parts": [{"name": "a"}]}, "parts.0.value"),
        ({"parts": {"name": "a"}}, "parts"),
        ({"by_name": {"c": 1.0}}, "by_name.c"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_no_report_is_refused(change: dict[str, Any], phrase: str) -> None:
    with pytest.raises(ValueError, match=phrase):
        Outer.from_json({**WHOLE.to_json(), **change})


@pytest.mark.parametrize("name", ["count", "colour", "parts"])
def test_a_field_that_is_missing_is_named(name: str) -> None:
    document = WHOLE.to_json()
    del document[name]
    with pytest.raises(ValueError, match=name):
        Outer.from_json(document)


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_object_is_refused(document: Any) -> None:
    with pytest.raises(ValueError):
        Outer.from_json(document)


def test_numbers_that_json_cannot_say_become_none() -> None:
    found = finite_or_none({"a": float("nan"), "b": float("inf"), "c": 1.0, "d": 2, "e": None})
    assert found == {"a": None, "b": None, "c": 1.0, "d": 2, "e": None}
