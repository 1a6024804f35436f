"""AutoInt's interacting layer: multi-head self-attention over the fields of one row."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras
from models.layers.dropout import DropoutFactory
from models.layers.mlp import no_layer
from models.layers.normalization import NormFactory
from models.norms.base import NormPlacement

__all__ = ["FieldSelfAttention"]


class FieldSelfAttention(keras.layers.Layer):
    """Lets every field attend to every field of its row.

    For head h: a_mk = softmax_k <W_q e_m, W_k e_k> (unscaled, as in the paper),
    o_m = sum_k a_mk W_v e_k; heads side by side, then out = dropout(relu(norm(o + W_res e))) or
    dropout(norm(relu(o + W_res e))).

    Args:
        num_heads: number of heads.
        head_dim: width of a head.
        residual: add W_res e.
        norm: makes the normalization [batch, fields, num_heads * head_dim].
        dropout: makes the dropout.
        placement: norm before or after the ReLU.

    Shapes:
        [batch, fields, dim] to [batch, fields, num_heads * head_dim].

    Source:
        Song et al. 2019, "AutoInt", section 4.4, arXiv 1810.11921; it has no norm.
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        *,
        residual: bool = True,
        norm: NormFactory = no_layer,
        dropout: DropoutFactory = no_layer,
        placement: NormPlacement = NormPlacement.BEFORE_ACTIVATION,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.num_heads, self.head_dim = num_heads, head_dim
        width = num_heads * head_dim
        # one matrix for queries, keys and values: three small products become one
        self.query_key_value = keras.layers.Dense(3 * width, use_bias=False, name="qkv")
        self.residual = (
            keras.layers.Dense(width, use_bias=False, name="residual") if residual else None
        )
        self.norm, self.dropout = norm(), dropout()
        self.norm_first = placement is NormPlacement.BEFORE_ACTIVATION

    def build(self, input_shape: tf.TensorShape) -> None:
        """Remembers the number of fields, which is fixed."""
        self.num_fields = input_shape[1]
        super().build(input_shape)

    def call(self, fields: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Interacted fields [batch, fields, num_heads * head_dim]."""
        shape = [-1, self.num_fields, 3, self.num_heads, self.head_dim]
        projected = tf.reshape(self.query_key_value(fields), shape)
        query, key, value = tf.unstack(projected, axis=2)  # [batch, fields, heads, head_dim]
        attention = tf.nn.softmax(tf.einsum("bmhd,bkhd->bhmk", query, key), axis=-1)
        x = tf.einsum("bhmk,bkhd->bmhd", attention, value)
        x = tf.reshape(x, [-1, self.num_fields, self.num_heads * self.head_dim])
        if self.residual is not None:
            x += self.residual(fields)
        if self.norm_first:
            x = tf.nn.relu(self.norm(x, training=training))
        else:
            x = self.norm(tf.nn.relu(x), training=training)
        return self.dropout(x, training=training)
