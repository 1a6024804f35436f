"""The rules of text inside a graph: lists, null markers and spellings of a boolean.

The expressions are those of `pipeline.values`, run by the same engine, so that a request is read as the
statistics were counted.
"""

from __future__ import annotations

import dataclasses
import re

import tensorflow as tf

from pipeline.values.lists import (
    BRACKETED,
    ITEM_MARK,
    TYPED,
    item_expression,
    quoted_item_expression,
    unusual_expression,
)
from pipeline.values.rules import ColumnRule

__all__ = ["canonical", "join_values", "split_items"]


def canonical(texts: tf.Tensor, rule: ColumnRule) -> tf.Tensor:
    """String [batch] with null markers empty and each boolean in one spelling."""
    by_value: dict[str, list[str]] = {}
    for text, value in rule.aliases.items():
        by_value.setdefault(value, []).append(re.escape(text))
    for value, spellings in by_value.items():
        texts = tf.strings.regex_replace(texts, f"^(?:{'|'.join(spellings)})$", value)
    return texts


def split_items(texts: tf.Tensor, rule: ColumnRule) -> tf.RaggedTensor:
    """String [batch] -> [batch, items], without empty items and null markers."""
    if rule.verbatim:
        items = tf.strings.split(texts, sep=rule.separator)
        return tf.ragged.boolean_mask(items, items != "")
    odd = tf.strings.regex_full_match(texts, f"(?s).*(?:{unusual_expression(rule)}).*")
    values, row_splits = tf.cond(
        tf.reduce_any(odd),
        lambda: _odd_parts(texts, odd, rule),
        lambda: _parts(texts, rule.separator),
    )
    items = tf.RaggedTensor.from_row_splits(values, row_splits, validate=False)
    return tf.ragged.boolean_mask(items, items.with_values(values != ""))


def _odd_parts(texts: tf.Tensor, odd: tf.Tensor, rule: ColumnRule) -> tuple[tf.Tensor, tf.Tensor]:
    """The items of texts of which some are not just to be cut; null markers as the empty text."""
    marked = tf.where(odd, _marked(texts, rule), _plain(texts, rule))
    values, row_splits = _parts(marked, ITEM_MARK)
    return canonical(values, dataclasses.replace(rule, kind="item")), row_splits


def join_values(values: tf.RaggedTensor) -> tf.Tensor:
    """The values of a feature of many Examples, [batch, values] -> string [batch].

    Several values are a typed list; one is a text, which may be a list itself.
    """
    marked = values.with_values(tf.strings.join([ITEM_MARK, values.values]))
    several, plain = (
        tf.strings.reduce_join(v.to_tensor(default_value=""), axis=1) for v in (marked, values)
    )
    return tf.where(values.row_lengths() > 1, several, plain)


def _parts(texts: tf.Tensor, separator: str) -> tuple[tf.Tensor, tf.Tensor]:
    items = tf.strings.split(texts, sep=separator)
    return items.values, items.row_splits


def _plain(texts: tf.Tensor, rule: ColumnRule) -> tf.Tensor:
    return tf.strings.regex_replace(texts, re.escape(rule.separator), ITEM_MARK)


def _marked(texts: tf.Tensor, rule: ColumnRule) -> tf.Tensor:
    """Every text with U+001F before each item; see `pipeline.values.lists`."""
    plain = tf.strings.regex_replace(texts, item_expression(rule), ITEM_MARK + r"\1")
    inner = tf.strings.regex_replace(texts, f"^{BRACKETED}$", r"\1")
    quoted = tf.strings.regex_replace(inner, quoted_item_expression(rule), ITEM_MARK + r"\1\2\3")
    bracketed = tf.strings.regex_full_match(texts, BRACKETED)
    marked = tf.where(bracketed, quoted, plain)
    return tf.where(tf.strings.regex_full_match(texts, TYPED), texts, marked)
