"""A throw-away norm: its layer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.keras2 import keras


@keras.utils.register_keras_serializable("clickparity_tests")
class L2Norm(keras.layers.Layer):
    """y = length x / sqrt(sum(x^2 over axes) + epsilon)."""

    def __init__(
        self, *, length: float, epsilon: float, axes: tuple[int, ...], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.length, self.epsilon, self.axes = length, epsilon, tuple(axes)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Gives each row the same length."""
        square = tf.reduce_sum(tf.square(x), axis=self.axes, keepdims=True)
        return self.length * x / tf.sqrt(square + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"length": self.length, "epsilon": self.epsilon, "axes": self.axes}
        return {**super().get_config(), **own}
