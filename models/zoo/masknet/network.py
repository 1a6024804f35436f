"""MaskNet: hidden layers multiplied by masks that are computed from the row's embeddings."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras
from models.layers.mask_block import MaskBlock
from models.layers.tabular import FieldFeatures
from models.zoo.base import CTRModel, Inputs
from models.zoo.masknet import MaskNetConfig
from pipeline.records.encoded import EncodedSpec

__all__ = ["MaskNet"]


class MaskNet(CTRModel):
    """MaskNet, serial or parallel.

    v = flatten of the fields [batch, (D + F) dim]; h0 = the same with its embeddings normalized
    block(h) = act(norm(W (mask(v) * h))), mask(v) = W2 relu(W1 v + b1) + b2
    serial (default, as in BARS): h_l = block_l(h_{l-1}), widths hidden_units; logit = w . h_L + b
    parallel: logit = w . MLP([block_1(h0), ..., block_n(h0)]) + b

    Paper: Wang et al. 2021, "MaskNet", arXiv 2102.07619. Its own normalization: layer, in the
    blocks and on the embeddings (model.norm.on_embeddings=true; BARS's best Criteo run leaves that
    out, and so does the default here). Reduction ratio and widths as in BARS; the paper's ratio is
    2.
    """

    def __init__(
        self, config: MaskNetConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        options = config.mask
        self.features = FieldFeatures(
            spec, config.embedding_dim, embedding=config.embedding, name="features"
        )
        self.embedding_norm = self.embedding_norm_factory()()
        self.serial = options.structure == "serial"
        widths = config.hidden_units if self.serial else (options.block_units,) * options.num_blocks
        self.blocks = [
            MaskBlock(
                width,
                reduction_ratio=options.reduction_ratio,
                norm=self.norm_factory("units"),
                dropout=self.dropout_factory(),
                activation=config.activation,
                placement=config.norm.placement,
                name=f"block_{i}",
            )
            for i, width in enumerate(widths)
        ]
        self.flatten = keras.layers.Flatten()
        self.mlp = self.make_mlp(() if self.serial else config.hidden_units, name="mlp")
        self.head = keras.layers.Dense(1, name="head")

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        fields = self.features(inputs, training=training)
        v = self.flatten(fields)
        h = self.flatten(self._normalize_embeddings(fields, training))
        if self.serial:
            for block in self.blocks:
                h = block((v, h), training=training)
        else:
            h = tf.concat([block((v, h), training=training) for block in self.blocks], axis=1)
        return self.head(self.mlp(h, training=training))

    def _normalize_embeddings(self, fields: tf.Tensor, training: bool | None) -> tf.Tensor:
        """The fields with all but the numeric ones normalized (see models/layers/tabular.py)."""
        numeric = self.features.num_numeric
        if numeric == self.features.num_fields:
            return fields
        normalized = self.embedding_norm(fields[:, numeric:], training=training)
        return tf.concat([fields[:, :numeric], normalized], axis=1)
