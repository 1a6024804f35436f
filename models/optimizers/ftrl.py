"""FTRL-proximal for the rows that a batch touches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.keras2 import keras
from models.optimizers.row_sparse import RowSparseOptimizer, read_rows, write_rows

__all__ = ["RowSparseFtrl"]


@keras.utils.register_keras_serializable(package="clickparity")
class RowSparseFtrl(RowSparseOptimizer):
    """FTRL-proximal (McMahan et al. 2013, algorithm 1), L1 for sparse weights.

    Equal to dense FTRL where every row is touched. A row at rest keeps its weights; dense FTRL
    recomputes them from its unchanged state, which gives the same once the row was touched.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        *,
        l1: float = 0.0,
        initial_accumulator: float = 1e-8,
        learning_rate_power: float = -0.5,
        name: str = "row_sparse_ftrl",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.l1 = l1
        self.initial_accumulator = initial_accumulator
        self.learning_rate_power = learning_rate_power

    def slot_shapes(self, table: tf.Variable) -> dict[str, tuple[tf.TensorShape, float]]:
        """An accumulator and a linear term a weight."""
        return {
            "accumulator": (table.shape, self.initial_accumulator),
            "linear": (table.shape, 0.0),
        }

    def updated_rows(
        self, weights: tf.Tensor, gradient: tf.Tensor, rows: tf.Tensor, **slots: tf.Variable
    ) -> tf.Tensor:
        """Reads and writes n rows of both slots."""
        rate = self._rate(weights)
        before = read_rows(slots["accumulator"], rows)
        total = before + tf.square(gradient)
        power, power_before = (tf.pow(x, -self.learning_rate_power) for x in (total, before))
        linear = read_rows(slots["linear"], rows) + gradient
        linear -= (power - power_before) / rate * weights
        write_rows(slots["accumulator"], rows, total)
        write_rows(slots["linear"], rows, linear)
        bounded = tf.clip_by_value(linear, -self.l1, self.l1)
        return (bounded - linear) * rate / power

    def get_config(self) -> dict[str, Any]:
        """Hyperparameters as plain data."""
        return {
            **super().get_config(),
            "l1": self.l1,
            "initial_accumulator": self.initial_accumulator,
            "learning_rate_power": self.learning_rate_power,
        }
