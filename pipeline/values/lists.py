r"""Lists: their items out of a text, and their text out of a typed list.

A text holds a list in one of three forms; Arrow (statistics) and the graph (features) part them by the
same expressions, in the same engine (RE2):

* `a|b`: cut at the separator; spaces around an item and empty items are dropped.
* `[a, 'b, c']`: brackets around the whole; blanks of any kind around an item are dropped, and an item in
  quotes may hold the separator and blanks.
* U+001F before each item: how a typed list is written where the first form would say something else.

An item that is a null marker is dropped.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.values.rules import ColumnRule

__all__ = [
    "BRACKETED",
    "ITEM_MARK",
    "TYPED",
    "item_expression",
    "join_lists",
    "list_items",
    "quoted_item_expression",
    "unusual_expression",
]

ITEM_MARK = "\x1f"
_BLANK = r"[ \t\r\n]"
TYPED = r"(?s)\x1f.*"
BRACKETED = (
    rf"(?s){_BLANK}*\[("
    r"""(?:[^\[\]'"]|'[^']*'|"[^"]*")*"""
    rf"|[^\[\]]*)\]{_BLANK}*"
)
"""The whole text of a list in brackets; its first group is what lies between them."""


def _separator(rule: ColumnRule) -> str:
    return re.escape(rule.separator)


def item_expression(rule: ColumnRule) -> str:
    """One item of a plain list with its separator; its only group is the item."""
    return rf"(?s) *(.*?) *(?:{_separator(rule)}|$)"


def quoted_item_expression(rule: ColumnRule) -> str:
    """One item of a list in brackets; one of its three groups is the item."""
    item = r"""(?:'([^']*)'|"([^"]*)"|(.*?))"""
    return rf"(?s){_BLANK}*{item}{_BLANK}*(?:{_separator(rule)}|$)"


def unusual_expression(rule: ColumnRule) -> str:
    """Found in every text that cutting at the separator alone would read wrongly."""
    # Several separators in a row give empty items, which are dropped: so do spaces that are separators.
    separator = _separator(rule)
    around = "" if rule.separator == " " else rf"|^ | $| {separator}|{separator} "
    markers = "|".join(map(re.escape, rule.markers))
    dropped = f"|(?:^|{separator})(?:{markers})(?:{separator}|$)" if markers else ""
    return rf"^{_BLANK}*\[|\x1f{around}{dropped}"


def list_items(texts: pa.Array, rule: ColumnRule) -> tuple[pa.Array, int]:
    """The items of binary [n] texts, b"" for a dropped one, and how many texts hold no item."""
    from pipeline.values.convert import canonical

    separator, has_markers = rule.separator, False
    if not rule.verbatim:
        odd = pc.match_substring_regex(texts, unusual_expression(rule))
        if pc.any(odd).as_py():
            # A text by itself: what is read out of it must not depend on its neighbours.
            usual = pc.replace_substring(texts, separator.encode(), ITEM_MARK.encode())
            texts, separator = pc.if_else(odd, _marked(texts, rule), usual), ITEM_MARK
            has_markers = True
    lists = pc.split_pattern(texts, separator.encode())
    items = pc.list_flatten(lists)
    if has_markers:
        items = canonical(items, rule.of_items())
    owners = pc.list_parent_indices(lists).filter(pc.not_equal(items, b""))
    filled = len(pc.unique(owners))
    return items, len(texts) - filled


def _marked(texts: pa.Array, rule: ColumnRule) -> pa.Array:
    """Every text with U+001F before each item."""
    typed = pc.match_substring_regex(texts, rf"^{TYPED}$")
    bracketed = pc.match_substring_regex(texts, rf"^{BRACKETED}$")
    plain = pc.replace_substring_regex(texts, item_expression(rule), ITEM_MARK + r"\1")
    inner = pc.replace_substring_regex(texts, rf"^{BRACKETED}$", r"\1")
    quoted = pc.replace_substring_regex(inner, quoted_item_expression(rule), ITEM_MARK + r"\1\2\3")
    return pc.if_else(typed, texts, pc.if_else(bracketed, quoted, plain))


def join_lists(lists: pa.Array, items: pa.Array, absent: pa.Array, rule: ColumnRule) -> pa.Array:
    """A list array as binary [n], null where the list is null; items that are null are left out.

    Args:
        lists: any list type.
        items: its flattened items as binary texts.
        absent: which of them are null.
        rule: of the list's column.

    Raises:
        ValueError: an item holds U+001F.
    """
    owner = np.asarray(pc.list_parent_indices(lists))
    if rule.kind == "list" and not rule.verbatim:
        if pc.any(pc.match_substring(items, ITEM_MARK)).as_py():
            raise ValueError("got an item that holds the control character U+001F")
        absent = pc.or_(absent, pc.equal(items, b""))
    present = pc.invert(absent)
    items, owner = items.filter(present), owner[np.asarray(present, bool)]
    joined = _joined(items, owner, len(lists), rule.separator)
    if rule.kind == "list" and not rule.verbatim:
        unsafe = np.asarray(pc.match_substring_regex(items, _unsafe_expression(rule)), bool)
        if unsafe.any():
            rows = np.zeros(len(lists), bool)
            rows[owner[unsafe]] = True
            marked = _joined(pc.binary_join_element_wise(b"", items, ITEM_MARK.encode()),
                             owner, len(lists), "")  # fmt: skip
            joined = pc.if_else(pa.array(rows), marked, joined)
    return pc.if_else(pc.is_null(lists), None, joined)


def _unsafe_expression(rule: ColumnRule) -> str:
    """Found in an item that a plain list could not hold."""
    separator = rule.separator
    edges = f"|^[{re.escape(separator)}]|[{re.escape(separator)}]$" if len(separator) > 1 else ""
    return rf"{_separator(rule)}|^ | $|^{_BLANK}*\[" + edges


def _joined(items: pa.Array, owner: np.ndarray, num_lists: int, separator: str) -> pa.Array:
    sizes = np.bincount(owner, minlength=num_lists)
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, items), separator.encode())
