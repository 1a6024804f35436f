"""Cross networks: DCN's vectors, DCN-v2's matrices on TFRS `Cross`, and the mixture of experts."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# isort: split
from models.keras2 import keras  # before TFRS, which refuses Keras 3 when it is imported

# isort: split
import tensorflow_recommenders as tfrs

__all__ = ["CrossMixture", "CrossMixtureNetwork", "CrossNetwork", "CrossNetworkV2"]


class CrossNetworkV2(keras.layers.Layer):
    """DCN-v2's cross network: x_{l+1} = x0 * (W_l x_l + b_l) + x_l, each layer a TFRS `Cross`.

    Args:
        num_layers: number of cross layers.
        projection_dim: None for a full W [width, width]; r for W = V U with U [r, width], V [width,
            r].

    Shapes:
        [batch, width] to [batch, width].

    Source:
        Wang et al. 2021, "DCN V2", equations 1 and 2, arXiv 2008.13535.
    """

    def __init__(
        self, num_layers: int, *, projection_dim: int | None = None, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.crosses = [
            tfrs.layers.feature_interaction.Cross(
                projection_dim=projection_dim,
                kernel_initializer="glorot_uniform",
                name=f"cross_{i}",
            )
            for i in range(num_layers)
        ]

    def call(self, x0: tf.Tensor) -> tf.Tensor:
        """Crossed features [batch, width]."""
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        return x


class CrossNetwork(keras.layers.Layer):
    """DCN's cross network: x_{l+1} = x0 (x_l . w_l) + b_l + x_l, with w_l and b_l vectors.

    Args:
        num_layers: number of cross layers.

    Shapes:
        [batch, width] to [batch, width].

    Source:
        Wang et al. 2017, "Deep & Cross Network for Ad Click Predictions", equation 3, arXiv
        1708.05123.
    """

    def __init__(self, num_layers: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.num_layers = num_layers

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes w and b, one row per layer."""
        shape = (self.num_layers, input_shape[-1])
        self.w = self.add_weight(name="w", shape=shape, initializer="glorot_uniform")
        self.b = self.add_weight(name="b", shape=shape, initializer="zeros")
        super().build(input_shape)

    def call(self, x0: tf.Tensor) -> tf.Tensor:
        """Crossed features [batch, width]."""
        x = x0
        for i in range(self.num_layers):
            projection = tf.reduce_sum(x * self.w[i], axis=1, keepdims=True)  # [batch, 1]
            x = x0 * projection + self.b[i] + x
        return x


class CrossMixture(keras.layers.Layer):
    """One low-rank cross layer with a gated mixture of experts (DCN-Mix).

    x' = sum_k G_k(x) E_k(x) + x with E_k(x) = x0 * (U_k tanh(C_k tanh(V_k^T x)) + b) and G a
    softmax over the experts of a linear map of x.

    Args:
        num_experts: number of experts K.
        projection_dim: rank r of each.

    Shapes:
        x0, x: [batch, width] to [batch, width].

    Source:
        Wang et al. 2021, "DCN V2", equations 3 and 4, arXiv 2008.13535; gate by softmax, g by tanh.
    """

    def __init__(self, num_experts: int, projection_dim: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.num_experts, self.projection_dim = num_experts, projection_dim
        self.gate = keras.layers.Dense(num_experts, activation="softmax", name="gate")

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes V [K, width, r], C [K, r, r], U [K, r, width] and b [width]."""
        width, experts, rank = input_shape[-1], self.num_experts, self.projection_dim

        def kernel(name: str, fan_in: int, fan_out: int) -> Any:
            limit = (6.0 / (fan_in + fan_out)) ** 0.5  # Glorot, for each expert by itself
            return self.add_weight(
                name=name,
                shape=(experts, fan_in, fan_out),
                initializer=keras.initializers.RandomUniform(-limit, limit),
            )

        self.v, self.c = kernel("v", width, rank), kernel("c", rank, rank)
        self.u = kernel("u", rank, width)
        self.b = self.add_weight(name="b", shape=(width,), initializer="zeros")
        super().build(input_shape)

    def call(self, x0: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Crossed features [batch, width]."""
        low = tf.tanh(tf.einsum("bw,kwr->bkr", x, self.v))  # [batch, experts, rank]
        low = tf.tanh(tf.einsum("bkr,krs->bks", low, self.c))
        high = tf.einsum("bkr,krw->bkw", low, self.u) + self.b  # [batch, experts, width]
        experts = x0[:, tf.newaxis, :] * high
        return tf.einsum("bk,bkw->bw", self.gate(x), experts) + x


class CrossMixtureNetwork(keras.layers.Layer):
    """A stack of `CrossMixture` layers on the same x0.

    Shapes:
        [batch, width] to [batch, width].
    """

    def __init__(
        self, num_layers: int, *, num_experts: int, projection_dim: int, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.crosses = [
            CrossMixture(num_experts, projection_dim, name=f"cross_{i}") for i in range(num_layers)
        ]

    def call(self, x0: tf.Tensor) -> tf.Tensor:
        """Crossed features [batch, width]."""
        x = x0
        for cross in self.crosses:
            x = cross(x0, x)
        return x
