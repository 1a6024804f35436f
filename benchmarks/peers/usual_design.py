"""The usual way to serve a CTR model with Keras, and the bare model, as SavedModels to time.

The usual way: one named input a column, one StringLookup and one Embedding a categorical feature,
log1p and scaling in Keras, then the same tower (DCN-v2's crosses beside an MLP with layer norm).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from models.keras2 import keras  # isort: skip - before TFRS, which refuses Keras 3
import tensorflow_recommenders as tfrs

from models.config.model import ModelConfig
from models.zoo.base import CTRModel, example_inputs
from models.zoo.dcn_v2 import DCNv2Config
from pipeline.schema import FeatureSchema
from pipeline.statistics.feature_statistics import FeatureStatistics


def save_bare_model(model: CTRModel, out: Path) -> Path:
    """The trained model alone, encoded tensors in, logits out: what no transform can beat."""
    module = tf.Module()
    module.model = model

    @tf.function
    def bare(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "logit": model({n.replace("_at_", "/"): v for n, v in inputs.items()}, training=False)
        }

    specs = {
        name.replace("/", "_at_"): tf.TensorSpec([None, *value.shape[1:]], value.dtype, name=name)
        for name, value in example_inputs(model.spec).items()
    }
    tf.saved_model.save(module, str(out), {"serving_default": bare.get_concrete_function(**specs)})
    return out


def save_usual_design(
    schema: FeatureSchema, statistics: FeatureStatistics, config: ModelConfig, out: Path
) -> Path:
    """The same columns and layer sizes as Keras layers, freshly initialised."""
    inputs: dict[str, Any] = {}
    parts = []
    for column in schema.input_numbers:
        inputs[column] = keras.Input([], name=column, dtype=tf.float32)
        known = tf.where(tf.math.is_finite(inputs[column]), inputs[column], 0.0)
        scaled = keras.layers.Rescaling(0.5, offset=-1.0)(tf.math.log1p(tf.maximum(known, 0.0)))
        parts.append(scaled[:, None])
    for column in schema.input_texts:
        inputs[column] = keras.Input([], name=column, dtype=tf.string)
        values = np.array(statistics.vocabularies[column].values.to_pylist(), object)
        lookup = keras.layers.StringLookup(
            vocabulary=[v.decode("utf-8", "replace") for v in values], num_oov_indices=1
        )
        table = keras.layers.Embedding(lookup.vocabulary_size(), config.embedding_dim)
        parts.append(table(lookup(inputs[column])))
    x0 = keras.layers.Concatenate()(parts)
    crossed = x0
    if not isinstance(config, DCNv2Config):
        raise TypeError(f"the usual design here is that of dcn_v2; got model.name={config.name}")
    for _ in range(config.cross.num_layers):
        crossed = tfrs.layers.dcn.Cross()(x0, crossed)
    deep = x0
    for units in config.hidden_units:
        deep = keras.layers.Dense(units)(deep)
        deep = keras.layers.Activation("relu")(keras.layers.LayerNormalization()(deep))
    logit = keras.layers.Dense(1)(keras.layers.Concatenate()([crossed, deep]))[:, 0]
    model = keras.Model(inputs, {"logit": logit, "probability": tf.sigmoid(logit)})
    specs = {n: tf.TensorSpec([None], x.dtype, name=n) for n, x in inputs.items()}
    run = tf.function(lambda **raw: model(raw, training=False))
    tf.saved_model.save(model, str(out), {"serving_default": run.get_concrete_function(**specs)})
    return out
