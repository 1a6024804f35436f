"""The normalizations behind one factory: `make_norm` turns a `NormConfig` into a fresh Keras layer.

A model receives a factory, never an instance: an instance would share its statistics and weights
between layers. The axes of each kind are told in `models.config.norm.NormConfig`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from models.config.norm import AxisKind, NormConfig, NormKind, check_norm
from models.keras2 import keras

__all__ = ["NormFactory", "RMSNorm", "VarianceOnlyLayerNorm", "make_norm"]

NormFactory = Callable[[], keras.layers.Layer]
_IMAGE_AXES = (1, 2, 3)


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


def make_norm(config: NormConfig, *, axis_kind: AxisKind) -> keras.layers.Layer:
    """A fresh normalization layer.

    Args:
        config: which one; widths were checked when the model's config was read (`check_norm`).
        axis_kind: "units" for [batch, units], "fields" for [batch, fields, dim], "image" for
            [batch, height, width, channels].

    Returns:
        A layer that keeps the shape. Kind `none` is the identity.

    Raises:
        ConfigError: instance normalization of units, which is a constant.
    """
    kind, epsilon = config.kind, config.epsilon
    row_axes = _IMAGE_AXES if axis_kind == "image" else (-1,)
    match kind:
        case NormKind.NONE:
            return keras.layers.Identity()
        case NormKind.BATCH:
            return keras.layers.BatchNormalization(
                axis=-1, momentum=config.momentum, epsilon=epsilon, synchronized=config.synchronized
            )
        case NormKind.LAYER if axis_kind == "image":
            # LayerNormalization over an image would learn a gain per pixel: per channel is meant
            return keras.layers.GroupNormalization(groups=1, axis=-1, epsilon=epsilon)
        case NormKind.LAYER:
            return keras.layers.LayerNormalization(axis=-1, epsilon=epsilon)
        case NormKind.GROUP:
            return keras.layers.GroupNormalization(groups=config.groups, axis=-1, epsilon=epsilon)
        case NormKind.INSTANCE:
            check_norm(config, axis_kind=axis_kind, width=0, where="a hidden layer")
            # groups=-1: a group per channel, which is instance normalization
            return keras.layers.GroupNormalization(groups=-1, axis=-1, epsilon=epsilon)
        case NormKind.RMS:
            return RMSNorm(epsilon=epsilon, axes=row_axes)
        case NormKind.VARIANCE_ONLY:
            return VarianceOnlyLayerNorm(epsilon=epsilon, axes=row_axes)
