"""A small convolutional network: an ad's picture to a vector."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from models.keras2 import keras
from models.layers.mlp import no_layer
from models.layers.normalization import NormFactory, removes_bias
from models.norms.base import NormPlacement

__all__ = ["ImageNetwork", "layer_sizes"]


def layer_sizes(height: int, width: int, num_layers: int) -> list[tuple[int, int]]:
    """Height and width at each convolution; pooling halves both while neither is below 2."""
    sizes = []
    for _ in range(num_layers):
        sizes.append((height, width))
        if min(height, width) >= 2:
            height, width = height // 2, width // 2
    return sizes


class ImageNetwork(keras.layers.Layer):
    """Convolutions, global average pooling, a linear embedding.

    Each layer: 3x3 convolution, norm, ReLU (or ReLU, norm), 2x2 max pooling while the picture is
    large enough. Pixels are scaled from [0, 255] to [-1, 1]. A convolution has no bias where its norm
    removes it, see `removes_bias`.

    Args:
        filters: channels of each layer.
        embedding_dim: width of the result.
        norm: makes the normalization of one layer [batch, height, width, channels].
        placement: norm before or after the ReLU.

    Shapes:
        uint8 [batch, height, width, channels] to [batch, embedding_dim].
    """

    def __init__(
        self,
        filters: Sequence[int],
        embedding_dim: int,
        *,
        norm: NormFactory = no_layer,
        placement: NormPlacement = NormPlacement.BEFORE_ACTIVATION,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.norm_first = placement is NormPlacement.BEFORE_ACTIVATION
        self.norms = [norm() for _ in filters]
        biases = [not (self.norm_first and removes_bias(norm)) for norm in self.norms]
        self.convolutions = [
            keras.layers.Conv2D(
                channels, kernel_size=3, padding="same", use_bias=use_bias, name=f"conv_{i}"
            )
            for i, (channels, use_bias) in enumerate(zip(filters, biases, strict=True))
        ]
        self.embedding = keras.layers.Dense(embedding_dim, name="embedding")

    def call(self, pixels: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The picture's embedding [batch, embedding_dim]."""
        x = tf.cast(pixels, self.compute_dtype) / 127.5 - 1.0
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(x)
            if self.norm_first:
                x = tf.nn.relu(norm(x, training=training))
            else:
                x = norm(tf.nn.relu(x), training=training)
            if min(x.shape[1], x.shape[2]) >= 2:
                x = tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")
        return self.embedding(tf.reduce_mean(x, axis=(1, 2)))
