"""AutoInt: self-attention over the fields, with an MLP beside it (AutoInt+)."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras
from models.layers.self_attention import FieldSelfAttention
from models.layers.tabular import FieldFeatures
from models.zoo.autoint import AutoIntConfig
from models.zoo.base import CTRModel, Inputs
from pipeline.records.encoded import EncodedSpec

__all__ = ["AutoInt"]


class AutoInt(CTRModel):
    """AutoInt+; AutoInt when hidden_units is empty.

    e [batch, D + F, dim]: x_d v_d for a numeric field, the embedding for a categorical one
    e' = attention_L(... attention_1(e)) [batch, D + F, num_heads head_dim]
    logit = w . flatten(e') + b + w' . MLP(flatten(e))

    Paper: Song et al. 2019, "AutoInt", arXiv 1810.11921; 3 layers of 2 heads of 32 as there. Its
    own normalization: none. BARS's best AutoInt+ is wider (2 heads of 128), adds a linear term, and
    uses layer norm in the attention and batch norm in the MLP.
    """

    def __init__(
        self, config: AutoIntConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        options = config.attention
        self.features = self.make_features(FieldFeatures)
        if config.norm.on_hidden:
            width = options.num_heads * options.head_dim
            config.norm.check_positions(self.features.num_fields, width, "autoint's attention")
        self.attention = [
            FieldSelfAttention(
                options.num_heads,
                options.head_dim,
                residual=options.residual,
                norm=self.norm_factory("fields"),
                dropout=self.dropout_factory(),
                placement=config.norm.placement,
                name=f"attention_{i}",
            )
            for i in range(options.num_layers)
        ]
        self.flatten = keras.layers.Flatten()
        self.mlp = self.make_mlp(config.hidden_units, name="mlp")
        self.head = keras.layers.Dense(1, name="head")
        self.deep_head = (
            keras.layers.Dense(1, use_bias=False, name="deep_head") if config.hidden_units else None
        )

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        fields = self.features(inputs, training=training)
        x = fields
        for attention in self.attention:
            x = attention(x, training=training)
        logits = self.head(self.flatten(x))
        if self.deep_head is not None:
            logits += self.deep_head(self.mlp(self.flatten(fields), training=training))
        return logits
