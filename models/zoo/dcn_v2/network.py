"""DCN-v2: a matrix cross network with a deep network beside it or on top."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras
from models.layers.cross import CrossMixtureNetwork, CrossNetworkV2
from models.layers.tabular import FlatFeatures
from models.zoo.base import CTRModel, Inputs
from models.zoo.dcn_v2 import DCNv2Config
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec

__all__ = ["DCNv2"]


class DCNv2(CTRModel):
    """Deep & Cross Network v2.

    x0 = [numeric, embeddings] [batch, D + F dim]
    x_{l+1} = x0 * (W_l x_l + b_l) + x_l, W full, low-rank U V, or a gated mixture of low-rank
    experts parallel (default, as in BARS): logit = w . [x_L, MLP(x0)] + b
    stacked: logit = w . MLP(x_L) + b

    Paper: Wang et al. 2021, "DCN V2: Improved Deep & Cross Network", arXiv 2008.13535; cross layers
    are TFRS `Cross`. The paper's own normalization: none named. It studies both structures;
    parallel with 3 cross layers is BARS's best on Criteo.
    """

    def __init__(
        self, config: DCNv2Config, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        cross = config.cross
        self.features = self.make_features(FlatFeatures)
        rank = cross.projection_dim
        width = len(spec.numeric) + self.features.embedded_width
        if rank is not None and rank >= width:
            raise ConfigError(
                "a low-rank cross layer must be narrower than its input",
                f"model.cross.projection_dim={rank}, input width={width}",
                f"Try model.cross.projection_dim={max(1, width // 4)}, or leave it out.",
            )
        self.cross_network: keras.layers.Layer
        if cross.num_experts > 1 and rank is not None:
            self.cross_network = CrossMixtureNetwork(
                cross.num_layers, num_experts=cross.num_experts, projection_dim=rank, name="cross"
            )
        else:
            self.cross_network = CrossNetworkV2(cross.num_layers, projection_dim=rank, name="cross")
        self.stacked = cross.structure == "stacked"
        self.mlp = self.make_mlp(config.hidden_units, name="mlp")
        self.head = keras.layers.Dense(1, name="head")

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        x0 = self.features(inputs, training=training)
        crossed = self.cross_network(x0)
        if self.stacked:
            return self.head(self.mlp(crossed, training=training))
        parts = [crossed]
        if self.config.hidden_units:  # without a deep network the cross network stands alone
            parts.append(self.mlp(x0, training=training))
        return self.head(tf.concat(parts, axis=1))
