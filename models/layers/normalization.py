"""The normalizations that Keras 2 lacks, and the factory that models receive.

A model receives a factory, never an instance: an instance would share its statistics and weights
between layers. models/norms says which layer belongs to which kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from models.keras2 import keras

__all__ = ["IMAGE_AXES", "NormFactory", "RMSNorm", "VarianceOnlyLayerNorm", "removes_bias"]

NormFactory = Callable[[], keras.layers.Layer]
IMAGE_AXES = (1, 2, 3)


def removes_bias(norm: keras.layers.Layer) -> bool:
    """Whether a norm subtracts, from each channel, a mean of that channel alone.

    A bias before it changes no output. Its gradient is rounding, which an adaptive optimizer scales to
    whole steps, different ones on each replica, and which moving means follow late: the layer before
    such a norm has none.
    """
    is_instance = isinstance(norm, keras.layers.GroupNormalization) and norm.groups == -1
    return is_instance or isinstance(norm, keras.layers.BatchNormalization)


@keras.utils.register_keras_serializable("clickparity")
class RMSNorm(keras.layers.Layer):
    """Root mean square layer normalization.

    y = x / sqrt(mean(x^2 over axes) + epsilon) * gamma, with gamma of the last axis's length, ones
    at first.

    Args:
        epsilon: added to the mean square.
        axes: the axes of a row that are reduced; the last one alone by default.

    Shapes:
        any [batch, ..., channels] to the same.

    Source:
        Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4, arXiv
        1910.07467.
    """

    def __init__(self, *, epsilon: float, axes: tuple[int, ...] = (-1,), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon, self.axes = epsilon, tuple(axes)

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes gamma [channels]."""
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="ones")
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalizes each row by its own root mean square."""
        mean_square = tf.reduce_mean(tf.square(x), axis=self.axes, keepdims=True)
        return x / tf.sqrt(mean_square + self.epsilon) * self.gamma

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "epsilon": self.epsilon, "axes": self.axes}


@keras.utils.register_keras_serializable("clickparity")
class VarianceOnlyLayerNorm(keras.layers.Layer):
    """Variance-only layer normalization (VO-LN): scale by the deviation, keep the mean.

    y = x / sqrt(var(x over axes) + epsilon); no centering, no gain, no bias.

    Args:
        epsilon: added to the (biased) variance.
        axes: the axes of a row that are reduced; the last one alone by default.

    Shapes:
        any [batch, ..., channels] to the same.

    Source:
        Wang, She, Zhang and Zhang 2020, "Correct Normalization Matters: Understanding the Effect of
        Normalization On Deep Neural Network Models For Click-Through Rate Prediction", arXiv
        2006.12753.
    """

    def __init__(self, *, epsilon: float, axes: tuple[int, ...] = (-1,), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon, self.axes = epsilon, tuple(axes)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Divides each row by its own standard deviation."""
        variance = tf.math.reduce_variance(x, axis=self.axes, keepdims=True)
        return x / tf.sqrt(variance + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "epsilon": self.epsilon, "axes": self.axes}
