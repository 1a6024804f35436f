"""Multi-layer perceptron: Dense, norm and activation in either order, dropout."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from models.keras2 import keras
from models.layers.dropout import DropoutFactory
from models.layers.normalization import NormFactory, removes_bias
from models.norms.base import NormPlacement

__all__ = ["MLP", "no_layer"]


def no_layer() -> keras.layers.Layer:
    """The factory of nothing: an identity layer."""
    return keras.layers.Identity()


class MLP(keras.layers.Layer):
    """Hidden layers h = dropout(act(norm(W x + b))), or dropout(norm(act(W x + b))).

    Without b where the norm removes it, see `removes_bias`.

    Args:
        units: widths of the hidden layers; empty makes the identity.
        norm: makes the normalization of one layer.
        dropout: makes the dropout of one layer.
        activation: name of the Keras activation.
        placement: norm before or after the activation.

    Shapes:
        [batch, any] to [batch, units[-1]].
    """

    def __init__(
        self,
        units: Sequence[int],
        *,
        norm: NormFactory = no_layer,
        dropout: DropoutFactory = no_layer,
        activation: str = "relu",
        placement: NormPlacement = NormPlacement.BEFORE_ACTIVATION,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.norm_first = placement is NormPlacement.BEFORE_ACTIVATION
        self.norms = [norm() for _ in units]
        biases = [not (self.norm_first and removes_bias(norm)) for norm in self.norms]
        self.denses = [
            keras.layers.Dense(width, use_bias=use_bias, name=f"dense_{i}")
            for i, (width, use_bias) in enumerate(zip(units, biases, strict=True))
        ]
        self.dropouts = [dropout() for _ in units]
        self.activation = keras.activations.get(activation)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Hidden representation [batch, units[-1]]."""
        for dense, norm, dropout in zip(self.denses, self.norms, self.dropouts, strict=True):
            x = dense(x)
            if self.norm_first:
                x = self.activation(norm(x, training=training))
            else:
                x = norm(self.activation(x), training=training)
            x = dropout(x, training=training)
        return x
