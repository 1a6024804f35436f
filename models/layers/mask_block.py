"""MaskNet's block: a hidden layer whose input is multiplied by a mask made of the embeddings."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.keras2 import keras
from models.layers.dropout import DropoutFactory
from models.layers.mlp import no_layer
from models.layers.normalization import NormFactory
from models.norms.base import NormPlacement

__all__ = ["MaskBlock"]


class MaskBlock(keras.layers.Layer):
    """h = act(norm(W (mask * x))) with the instance-guided mask = W2 relu(W1 v + b1) + b2.

    Args:
        units: width of h.
        reduction_ratio: width of W1's output over the width of x.
        norm: makes the normalization [batch, units].
        dropout: makes the dropout.
        activation: name of the Keras activation.
        placement: norm before or after the activation.

    Shapes:
        (embeddings v [batch, V], x [batch, X]) to [batch, units].

    Source:
        Wang et al. 2021, "MaskNet", section 3, arXiv 2102.07619; its norm is layer.
    """

    def __init__(
        self,
        units: int,
        *,
        reduction_ratio: float,
        norm: NormFactory = no_layer,
        dropout: DropoutFactory = no_layer,
        activation: str = "relu",
        placement: NormPlacement = NormPlacement.BEFORE_ACTIVATION,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.reduction_ratio = reduction_ratio
        self.hidden = keras.layers.Dense(units, use_bias=False, name="hidden")
        self.norm, self.dropout = norm(), dropout()
        self.activation = keras.activations.get(activation)
        self.norm_first = placement is NormPlacement.BEFORE_ACTIVATION

    def build(self, input_shape: Any) -> None:
        """Makes the mask's two layers, whose widths follow from x."""
        width = input_shape[1][-1]
        reduced = max(1, round(width * self.reduction_ratio))
        self.mask_hidden = keras.layers.Dense(reduced, activation="relu", name="mask_hidden")
        # a bias of ones: with zeros the first masks would be as small as the embeddings, and blocks
        # in series would multiply what they pass on towards nothing
        self.mask = keras.layers.Dense(width, bias_initializer="ones", name="mask")
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """The masked hidden layer [batch, units] of (embeddings, x)."""
        embeddings, x = inputs
        x = self.hidden(self.mask(self.mask_hidden(embeddings)) * x)
        if self.norm_first:
            x = self.activation(self.norm(x, training=training))
        else:
            x = self.norm(self.activation(x), training=training)
        return self.dropout(x, training=training)
