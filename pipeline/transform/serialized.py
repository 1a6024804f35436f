"""Serialized `tf.Example`s -> raw columns, inside a graph."""

from __future__ import annotations

import tensorflow as tf

from pipeline.schema import FeatureSchema
from pipeline.transform.text_rules import join_values
from pipeline.values import column_rules

__all__ = ["parse_examples"]


def parse_examples(examples: tf.Tensor, schema: FeatureSchema) -> dict[str, tf.Tensor]:
    """String [batch] of serialized Examples -> raw columns by name; an absent feature is missing.

    A list column may have several values, which are the items of a typed list; any other column with
    several is refused by TensorFlow.
    """
    rules = column_rules(schema)
    features: dict[str, tf.io.FixedLenFeature | tf.io.RaggedFeature] = {}
    for column in schema.input_numbers:
        features[column] = tf.io.FixedLenFeature([], tf.float32, default_value=float("nan"))
    for column in (*schema.input_texts, *schema.input_images):
        features[column] = tf.io.FixedLenFeature([], tf.string, default_value="")
    lists = [c for c in schema.input_texts if rules[c].kind == "list" and not rules[c].verbatim]
    for column in lists:
        features[column] = tf.io.RaggedFeature(tf.string)
    raw = tf.io.parse_example(examples, features)
    return {**raw, **{column: join_values(raw[column]) for column in lists}}
