"""Adam for the rows that a batch touches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.keras2 import keras
from models.optimizers.row_sparse import RowSparseOptimizer, read_rows, write_rows

__all__ = ["LazyAdam"]


@keras.utils.register_keras_serializable(package="clickparity")
class LazyAdam(RowSparseOptimizer):
    """Adam (Kingma & Ba 2015) whose moments decay only when their row is touched.

    Equal to Adam where every row is touched in every step. Elsewhere a row's moments keep their
    value while it rests, and it is not moved by old momentum; the bias correction counts the global
    steps, as in TensorFlow Addons' LazyAdam.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "lazy_adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def slot_shapes(self, table: tf.Variable) -> dict[str, tuple[tf.TensorShape, float]]:
        """Two moments a weight."""
        return {"m": (table.shape, 0.0), "v": (table.shape, 0.0)}

    def updated_rows(
        self, weights: tf.Tensor, gradient: tf.Tensor, rows: tf.Tensor, **slots: tf.Variable
    ) -> tf.Tensor:
        """Reads and writes n rows of both moments."""
        step = tf.cast(self.iterations + 1, weights.dtype)
        correction = tf.sqrt(1 - tf.pow(self.beta_2, step)) / (1 - tf.pow(self.beta_1, step))
        rate = self._rate(weights) * correction
        m, v = read_rows(slots["m"], rows), read_rows(slots["v"], rows)
        m = m + (gradient - m) * (1 - self.beta_1)
        v = v + (tf.square(gradient) - v) * (1 - self.beta_2)
        write_rows(slots["m"], rows, m)
        write_rows(slots["v"], rows, v)
        return weights - rate * m / (tf.sqrt(v) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """Hyperparameters as plain data."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }
