"""A throw-away model: its network."""

from __future__ import annotations

import tensorflow as tf
from models.zoo.perceptron import PerceptronConfig

from models.keras2 import keras
from models.layers.tabular import FlatFeatures
from models.zoo.base import CTRModel, Inputs
from pipeline.records.encoded import EncodedSpec


class Perceptron(CTRModel):
    """logit = w . MLP([numeric, embeddings]) + b."""

    def __init__(
        self, config: PerceptronConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        self.features = self.make_features(FlatFeatures)
        widths = (config.perceptron.first_units, *config.hidden_units)
        self.mlp = self.make_mlp(widths, name="mlp")
        self.head = keras.layers.Dense(1, name="head")

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        return self.head(self.mlp(self.features(inputs, training=training), training=training))
