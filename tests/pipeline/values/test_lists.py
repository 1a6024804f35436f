"""Lists written as text: the same items in Arrow (statistics) and in the graph (features), row by row."""

from __future__ import annotations

import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.transform.text_rules import split_items
from pipeline.values import ColumnRule, list_items, to_text

MARKERS = ("NULL", "nan")


def rule_of(separator: str) -> ColumnRule:
    return ColumnRule("list", separator=separator, markers=MARKERS)


def in_arrow(text: str, rule: ColumnRule) -> list[str]:
    items, empty = list_items(pa.array([text.encode()]), rule)
    found = [i.decode() for i in items.to_pylist() if i]
    assert empty == (not found)
    return found


@pytest.mark.parametrize(
    "text, separator, items",
    [
        ("21, 24", ",", ["21", "24"]),
        ("[21, 24]", ",", ["21", "24"]),
        ("[7]", ",", ["7"]),
        ("[]", ",", []),
        (" [ 'a', \"b\" ] ", ",", ["a", "b"]),
        ("['Kids, Family', 'Drama']", ",", ["Kids, Family", "Drama"]),
        ("[it's, b]", ",", ["it's", "b"]),
        ('["it\'s", "[x]"]', ",", ["it's", "[x]"]),
        ("[1\n 2]", " ", ["1", "2"]),
        ("[a]|[b]", "|", ["[a]", "[b]"]),
        ("'a','b'", ",", ["'a'", "'b'"]),
        ("a::b:: c", "::", ["a", "b", "c"]),
        ("a,,NULL, nan ,b,", ",", ["a", "b"]),
        ("None of\tthis\n", " ", ["None", "of\tthis\n"]),
        ("\x1fKids, Family\x1f a", ",", ["Kids, Family", " a"]),
        ("True|False", "|", ["True", "False"]),
    ],
)
def test_the_items_of_a_text(text: str, separator: str, items: list[str]) -> None:
    rule = rule_of(separator)
    assert in_arrow(text, rule) == items
    assert [i.decode() for i in split_items(tf.constant([text]), rule)[0].numpy()] == items


texts = st.text("ab ,|:[]'\"\n\t\x1fé", max_size=12) | st.sampled_from(["NULL", "[a, b]", "a, b"])


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(texts, min_size=1, max_size=6), separator=st.sampled_from([",", "|", " ", "::"])
)
def test_arrow_and_the_graph_agree_whatever_the_neighbours(rows: list[str], separator: str) -> None:
    rule = rule_of(separator)
    together = split_items(tf.constant(rows), rule).to_list()
    for text, found in zip(rows, together, strict=True):
        alone = split_items(tf.constant([text]), rule).to_list()[0]
        assert alone == found == [i.encode() for i in in_arrow(text, rule)], (text, rows)
    flat, empty = list_items(pa.array([r.encode() for r in rows]), rule)
    assert [i for i in flat.to_pylist() if i] == [i for found in together for i in found]
    assert empty == sum(not found for found in together)


items = st.text("ab ,|:[]'\"\n\té", max_size=6)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.lists(st.none() | items, max_size=4), min_size=1, max_size=5),
       separator=st.sampled_from([",", "|", " ", "::"]))  # fmt: skip
def test_a_typed_list_comes_back(rows: list[list[str | None]], separator: str) -> None:
    rule = rule_of(separator)
    written = to_text(pa.array(rows, pa.list_(pa.string())), rule).to_pylist()
    for row, text in zip(rows, written, strict=True):
        assert in_arrow(text.decode(), rule) == [i for i in row if i and i not in MARKERS]


def test_an_item_with_the_mark_of_typed_lists_is_refused() -> None:
    with pytest.raises(ValueError, match=r"U\+001F"):
        to_text(pa.array([["a\x1fb"]]), rule_of(","))


def test_earlier_rules_take_a_text_as_it_is_written() -> None:
    rule = ColumnRule("list", verbatim=True)
    assert in_arrow("[21, 24]", rule) == ["[21", " 24]"]
    assert split_items(tf.constant(["[21, 24]"]), rule).to_list() == [[b"[21", b" 24]"]]
