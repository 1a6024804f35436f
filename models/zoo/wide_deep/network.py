"""Wide & Deep: a linear model and an MLP, trained together."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras
from models.layers.tabular import FlatFeatures, LinearTerm
from models.zoo.base import CTRModel, Inputs
from models.zoo.wide_deep import WideDeepConfig
from pipeline.records.encoded import EncodedSpec

__all__ = ["WideDeep"]


class WideDeep(CTRModel):
    """Wide & Deep.

    logit = b + sum_f w_f[id_f] + w . numeric + w' . MLP([numeric, embeddings])
    wide: one weight per id and per numeric feature; deep: [batch, D + F dim] through hidden_units.

    Paper: Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems", arXiv 1606.07792.
    Its own normalization: none. The paper's hand-made cross features belong in the schema. It trains
    the wide part by FTRL with L1; here the tables' optimizer trains both tables (FTRL for the wide one
    gained nothing on 100,000 rows of the synthetic log). Widths as in BARS.
    """

    def __init__(
        self, config: WideDeepConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        self.wide = LinearTerm(spec, embedding=config.embedding, name="wide")
        self.features = self.make_features(FlatFeatures)
        self.mlp = self.make_mlp(config.hidden_units, name="mlp")
        self.head = keras.layers.Dense(1, use_bias=False, name="head")

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        deep = self.mlp(self.features(inputs, training=training), training=training)
        return self.wide(inputs) + self.head(deep)
