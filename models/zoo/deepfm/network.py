"""DeepFM: a factorization machine and an MLP on the same embeddings."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras
from models.layers.factorization_machine import FactorizationMachine
from models.layers.tabular import FieldFeatures, LinearTerm
from models.zoo.base import CTRModel, Inputs
from models.zoo.deepfm import DeepFMConfig
from pipeline.records.encoded import EncodedSpec

__all__ = ["DeepFM"]


class DeepFM(CTRModel):
    """DeepFM.

    e [batch, D + F, dim]: x_d v_d for a numeric field, the embedding for a categorical one
    logit = b + sum_f w_f[id_f] + w . numeric + sum_{i<j} <e_i, e_j> + w' . MLP(flatten(e))

    Paper: Guo et al. 2017, "DeepFM", arXiv 1703.04247. Its own normalization: none. Widths as in
    BARS.
    """

    def __init__(
        self, config: DeepFMConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        self.linear = LinearTerm(spec, embedding=config.embedding, name="linear")
        self.features = self.make_features(FieldFeatures)
        self.pairs = FactorizationMachine(name="pairs")
        self.flatten = keras.layers.Flatten()
        self.mlp = self.make_mlp(config.hidden_units, name="mlp")
        self.head = keras.layers.Dense(1, use_bias=False, name="head")

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        fields = self.features(inputs, training=training)
        deep = self.mlp(self.flatten(fields), training=training)
        return self.linear(inputs) + self.pairs(fields) + self.head(deep)
