"""FinalMLP's parts: a gate on a stream's input, and the bilinear fusion of two streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from models.keras2 import keras

__all__ = ["BilinearFusion", "FeatureGate"]


class FeatureGate(keras.layers.Layer):
    """Stream-specific feature selection: x * 2 sigmoid(MLP(context)).

    Args:
        hidden_units: widths of the gate's ReLU layers.
        constant_dim: None, or the width of a learned context that stands in for context features.

    Shapes:
        x [batch, width], context [batch, any] (None with a constant) to [batch, width].

    Source:
        Mao et al. 2023, "FinalMLP" (stream-specific feature selection), arXiv 2304.00902.
    """

    def __init__(
        self, hidden_units: Sequence[int], *, constant_dim: int | None, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.constant_dim = constant_dim
        self.hiddens = [
            keras.layers.Dense(width, activation="relu", name=f"hidden_{i}")
            for i, width in enumerate(hidden_units)
        ]

    def build(self, input_shape: Any) -> None:
        """Makes the gate's last layer, as wide as x, and the constant context [1, constant_dim]."""
        self.gate = keras.layers.Dense(input_shape[-1], activation="sigmoid", name="gate")
        if self.constant_dim is not None:
            # not zeros: with zero biases the gate's ReLUs would never get a gradient
            self.constant = self.add_weight(
                name="constant",
                shape=(1, self.constant_dim),
                initializer=keras.initializers.RandomNormal(stddev=1.0),
            )
        super().build(input_shape)

    def call(self, x: tf.Tensor, context: tf.Tensor | None = None) -> tf.Tensor:
        """The gated input [batch, width]."""
        gate = context if self.constant_dim is None else tf.convert_to_tensor(self.constant)
        for hidden in self.hiddens:
            gate = hidden(gate)
        return x * 2.0 * self.gate(gate)  # a constant context's gate is [1, width] and broadcasts


class BilinearFusion(keras.layers.Layer):
    """logit = b + w1 . o1 + w2 . o2 + sum_h o1_h^T W_h o2_h, the streams cut into heads.

    Args:
        num_heads: number of heads; divides both widths.

    Shapes:
        o1 [batch, A], o2 [batch, B] to [batch, 1]; W has A * B / num_heads numbers.

    Source:
        Mao et al. 2023, "FinalMLP" (stream-level fusion), arXiv 2304.00902.
    """

    def __init__(self, num_heads: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.num_heads = num_heads
        self.first = keras.layers.Dense(1, name="first")
        self.second = keras.layers.Dense(1, use_bias=False, name="second")

    def build(self, input_shape: Any) -> None:
        """Makes W [heads, A / heads, B / heads]."""
        first, second = input_shape
        self.widths = (first[-1] // self.num_heads, second[-1] // self.num_heads)
        self.bilinear = self.add_weight(
            name="bilinear",
            shape=(self.num_heads, *self.widths),
            # as of one matrix [A * B / heads, 1], which is how the authors' code initialises it
            initializer=keras.initializers.RandomNormal(
                stddev=(2.0 / (self.num_heads * self.widths[0] * self.widths[1] + 1)) ** 0.5
            ),
        )
        super().build(input_shape)

    def call(self, streams: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """The fused logit [batch, 1] of (o1, o2)."""
        first, second = streams
        a = tf.reshape(first, [-1, self.num_heads, self.widths[0]])
        b = tf.reshape(second, [-1, self.num_heads, self.widths[1]])
        pairs = tf.einsum("bha,had,bhd->b", a, self.bilinear, b)[:, tf.newaxis]
        return self.first(first) + self.second(second) + pairs
