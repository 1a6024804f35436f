"""Adagrad for the rows that a batch touches: an accumulator a weight, or one a row."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.keras2 import keras
from models.optimizers.row_sparse import RowSparseOptimizer, read_rows, write_rows

__all__ = ["RowSparseAdagrad", "RowwiseAdagrad"]


@keras.utils.register_keras_serializable(package="clickparity")
class RowSparseAdagrad(RowSparseOptimizer):
    """Adagrad (Duchi et al. 2011): a += g^2; row -= lr * g / sqrt(a).

    Equal to dense Adagrad always, not only where every row is touched: a zero gradient changes
    nothing there either. No epsilon: `initial_accumulator` > 0 keeps the root away from 0.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        *,
        initial_accumulator: float = 1e-8,
        name: str = "row_sparse_adagrad",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        if initial_accumulator <= 0:
            raise ValueError(
                f"initial_accumulator must be positive; got {initial_accumulator}. Try 1e-8."
            )
        self.initial_accumulator = initial_accumulator

    def slot_shapes(self, table: tf.Variable) -> dict[str, tuple[tf.TensorShape, float]]:
        """One accumulator a weight."""
        return {"accumulator": (table.shape, self.initial_accumulator)}

    def updated_rows(
        self, weights: tf.Tensor, gradient: tf.Tensor, rows: tf.Tensor, **slots: tf.Variable
    ) -> tf.Tensor:
        """Reads and writes n rows of the accumulator."""
        total = read_rows(slots["accumulator"], rows) + tf.square(gradient)
        write_rows(slots["accumulator"], rows, total)
        return weights - self._rate(weights) * gradient * tf.math.rsqrt(total)

    def get_config(self) -> dict[str, Any]:
        """Hyperparameters as plain data."""
        return {**super().get_config(), "initial_accumulator": self.initial_accumulator}


@keras.utils.register_keras_serializable(package="clickparity")
class RowwiseAdagrad(RowSparseOptimizer):
    """Row-wise Adagrad as TorchRec's and FBGEMM's: one accumulator a row.

    a += mean(g^2); row -= lr * g / (sqrt(a) + epsilon). State is 1/dim of Adagrad's.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        *,
        initial_accumulator: float = 0.0,
        epsilon: float = 1e-8,
        name: str = "rowwise_adagrad",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.initial_accumulator, self.epsilon = initial_accumulator, epsilon

    def slot_shapes(self, table: tf.Variable) -> dict[str, tuple[tf.TensorShape, float]]:
        """One accumulator a row."""
        return {"accumulator": (table.shape[:1], self.initial_accumulator)}

    def updated_rows(
        self, weights: tf.Tensor, gradient: tf.Tensor, rows: tf.Tensor, **slots: tf.Variable
    ) -> tf.Tensor:
        """Reads and writes n numbers of the accumulator."""
        accumulator = slots["accumulator"]
        total = read_rows(accumulator, rows) + tf.reduce_mean(tf.square(gradient), axis=1)
        write_rows(accumulator, rows, total)
        rate = self._rate(weights) / (tf.sqrt(total) + self.epsilon)
        return weights - gradient * rate[:, tf.newaxis]

    def get_config(self) -> dict[str, Any]:
        """Hyperparameters as plain data."""
        return {
            **super().get_config(),
            "initial_accumulator": self.initial_accumulator,
            "epsilon": self.epsilon,
        }
