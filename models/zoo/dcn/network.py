"""DCN: the first Deep & Cross Network, with vectors for weights."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras
from models.layers.cross import CrossNetwork
from models.layers.tabular import FlatFeatures
from models.zoo.base import CTRModel, Inputs
from models.zoo.dcn import DCNConfig
from pipeline.records.encoded import EncodedSpec

__all__ = ["DCN"]


class DCN(CTRModel):
    """Deep & Cross Network.

    x0 = [numeric, embeddings] [batch, D + F dim]
    x_{l+1} = x0 (x_l . w_l) + b_l + x_l
    logit = w . [x_L, MLP(x0)] + b

    Paper: Wang et al. 2017, "Deep & Cross Network for Ad Click Predictions", arXiv 1708.05123.
    Its own normalization: batch, on the deep network. Widths as in BARS.
    """

    def __init__(
        self, config: DCNConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        self.features = self.make_features(FlatFeatures)
        self.cross_network = CrossNetwork(config.cross.num_layers, name="cross")
        self.mlp = self.make_mlp(config.hidden_units, name="mlp")
        self.head = keras.layers.Dense(1, name="head")

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        x0 = self.features(inputs, training=training)
        parts = [self.cross_network(x0)]
        if self.config.hidden_units:  # without a deep network the cross network stands alone
            parts.append(self.mlp(x0, training=training))
        return self.head(tf.concat(parts, axis=1))
