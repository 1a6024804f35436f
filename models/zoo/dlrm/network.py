"""DLRM: dot products of embeddings and a bottom MLP's vector."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras
from models.layers.dot_interaction import PairwiseDots
from models.layers.tabular import FieldFeatures
from models.zoo.base import CTRModel, Inputs
from models.zoo.dlrm import DLRMConfig
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec

__all__ = ["DLRM"]


class DLRM(CTRModel):
    """Deep Learning Recommendation Model.

    z = bottom MLP(numeric) [batch, dim]; e [batch, F, dim] the embeddings
    logit = w . MLP([z, <v_i, v_j> for every pair of the F + 1 vectors]) + b
    Without numeric features the flattened embeddings take the place of z.

    Paper: Naumov et al. 2019, "Deep Learning Recommendation Model", arXiv 1906.00091; bottom widths
    512-256-64-dim as in its open-source code; the dot products are TFRS `DotInteraction`. Its own
    normalization: none.
    """

    def __init__(
        self, config: DLRMConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        options = config.dlrm
        vectors = len(spec.categorical) + len(spec.sequences) + bool(spec.numeric)
        if not (spec.categorical or spec.sequences) or vectors + options.self_interaction < 2:
            raise ConfigError(
                "dlrm multiplies embeddings: it needs two categorical or sequence features, or one "
                "beside numeric ones",
                f"{vectors - bool(spec.numeric)} of them, {len(spec.numeric)} numeric",
                "Declare more features in the schema, or set model.name=wide_deep.",
            )
        self.bottom = self.make_mlp(config.bottom_widths, name="bottom") if spec.numeric else None
        embedded = EncodedSpec(numeric=(), categorical=spec.categorical, sequences=spec.sequences)
        self.features = self.make_features(FieldFeatures, embedded)
        self.dots = PairwiseDots(self_interaction=options.self_interaction, name="dots")
        self.flatten = keras.layers.Flatten()
        self.mlp = self.make_mlp(config.hidden_units, name="mlp")
        self.head = keras.layers.Dense(1, name="head")

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        vectors = self.features(inputs, training=training)  # [batch, F, dim]
        if self.bottom is None:
            beside = self.flatten(vectors)
        else:
            beside = self.bottom(inputs["numeric"], training=training)
            vectors = tf.concat([beside[:, tf.newaxis, :], vectors], axis=1)
        x = tf.concat([beside, self.dots(vectors)], axis=1)
        return self.head(self.mlp(x, training=training))
