"""The average of a training's weights over its last steps: what is validated and kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import tensorflow as tf

from models.config.train import AveragingConfig
from models.optimizers import CompositeOptimizer, RowSparseOptimizer
from models.optimizers.row_sparse import read_rows, write_rows

if TYPE_CHECKING:
    from models.zoo.base import CTRModel

__all__ = ["WeightAverage"]

_BLOCK_ROWS = 1 << 18  # of a table, exchanged at once
_HORIZONS = 20  # after so many an exponential average is brought back to scale: e^-20 is 2e-9


class WeightAverage(tf.Module):
    """Averages all trainable weights over a window of steps; a `tf.train.Checkpoint` holds it.

    a_t = b_t a_(t-1) + (1 - b_t) w_t with t counted from the window's first step; b_t = (t - 1) / t makes
    it the mean, and an exponential average goes on with b = 1 - 1/n from t = n on. Dense weights have
    their mean updated in every step of the window; a table costs the rows that the step touched
    (`RowAveraging`). One more copy of the weights in memory, none beside it while they are exchanged, but
    for the exponential kind, which keeps a second one on the host meanwhile.

    Args:
        config: its kind is not "none".
        steps_per_epoch: of the training.
        model: made in the strategy's scope.
        optimizer: of the model, made with the same config.
        strategy: over the replicas.

    Attributes:
        length: steps of the window, n.
        means: of the weights that are not row-sparse tables, in the order of `trainable_variables`.
    """

    def __init__(
        self,
        config: AveragingConfig,
        steps_per_epoch: int,
        model: CTRModel,
        optimizer: CompositeOptimizer,
        strategy: tf.distribute.Strategy,
    ) -> None:
        super().__init__(name="weight_average")
        self._strategy, self._sparse = strategy, optimizer.sparse
        self._ends = config.kind == "tail"
        least = 1 if self._ends else 2  # an exponential average over 1 step keeps nothing
        self.length = max(least, round(config.share * steps_per_epoch))
        is_sparse = isinstance(optimizer.sparse, RowSparseOptimizer)
        tables = {id(table) for table in model.sparse_variables} if is_sparse else set()
        self._tables = [v for v in model.trainable_variables if id(v) in tables]
        self._dense = [v for v in model.trainable_variables if id(v) not in tables]
        with strategy.scope():
            self.means = [_zeros_beside(weight) for weight in self._dense]

    def steps_before(self, epoch_step: int, global_step: int, window_start: int) -> int:
        """Steps that the average covers so far; below 1: it has not begun.

        Args:
            epoch_step: done in this epoch.
            global_step: done at all.
            window_start: steps of this epoch before its window.
        """
        return epoch_step - window_start if self._ends else global_step

    def trace_scales(self, t: tf.Tensor) -> None:
        """Tells the tables' optimizer how much the step that is traced next counts.

        Args:
            t: of that step, int32; below 1 outside the window.
        """
        if not self._tables:
            return
        count = tf.cast(t, tf.float32)
        scale = tf.maximum(count - 1.0, 0.0)
        fold = None
        if not self._ends:
            n, late, round_trip = self.length, t - self.length, self._round_trip
            left = tf.pow(self._kept, tf.cast((late - 1) % round_trip, tf.float32))
            scale = tf.where(late > 0, 1.0 / left, scale)
            whole = tf.constant(self._kept**round_trip, tf.float32)
            fold = tf.where((late > 0) & (late % round_trip == 0), whole, 1.0)
            fold = tf.where(late == 0, 1.0 / n, fold)
        self._sparse.averaging.scale, self._sparse.averaging.fold = scale, fold

    def update_dense(self, t: tf.Tensor) -> None:
        """Adds the weights after a step to their means. Call it in a replica context."""
        kept = self._kept_share(t)

        def add() -> tf.Tensor:
            for weight, mean in zip(self._dense, self.means, strict=True):
                value, before = (
                    tf.raw_ops.ReadVariableOp(resource=v.handle, dtype=tf.float32)
                    for v in (weight, mean)
                )
                after = kept * before + (1.0 - kept) * value
                tf.raw_ops.AssignVariableOp(resource=mean.handle, value=after)
            return tf.constant(0)

        tf.cond(t > 0, add, lambda: tf.constant(0))

    def put_in(self, t: int) -> None:
        """Exchanges the weights for their average over t steps; nothing without any.

        Args:
            t: steps that the average covers.
        """
        if t < 1:
            return
        self._host_copy = [] if self._ends else [offset.numpy() for offset in self._offsets()]
        for weight, mean in self._pairs(self._dense, self.means):
            raw = weight.read_value()
            weight.assign(mean.read_value())
            mean.assign(raw)
        for rows, table, offset in self._blocks():
            raw = read_rows(table, rows)
            write_rows(table, rows, raw + self._product(t) * read_rows(offset, rows))
            write_rows(offset, rows, raw)

    def take_out(self, t: int) -> None:
        """Puts the weights back from which training goes on; a tail's average is forgotten."""
        if t < 1:
            return
        for weight, mean in self._pairs(self._dense, self.means):
            average = weight.read_value()
            weight.assign(mean.read_value())
            mean.assign(average)
        for rows, table, offset in self._blocks():
            raw = read_rows(offset, rows)
            write_rows(table, rows, raw)
            write_rows(offset, rows, tf.zeros_like(raw))
        for offset, kept in zip(self._offsets(), self._host_copy, strict=False):
            offset.assign(kept)
        self._host_copy = []

    @property
    def _kept(self) -> float:
        """The b of an exponential average."""
        return 1.0 - 1.0 / self.length

    @property
    def _round_trip(self) -> int:
        return _HORIZONS * self.length

    def _kept_share(self, t: tf.Tensor) -> tf.Tensor:
        """The b_t of a step."""
        count = tf.cast(t, tf.float32)
        mean = (count - 1.0) / tf.maximum(count, 1.0)
        return mean if self._ends else tf.minimum(mean, self._kept)

    def _product(self, t: int) -> float:
        """P_t: what the tables' offsets are multiplied by."""
        if self._ends or t < self.length:
            return 1.0 / t
        return float(self._kept ** ((t - self.length) % self._round_trip))

    def _offsets(self) -> list[tf.Variable]:
        return self._sparse.offsets if self._tables else []

    def _pairs(
        self, weights: list[tf.Variable], beside: list[tf.Variable]
    ) -> Iterator[tuple[tf.Variable, tf.Variable]]:
        """Every replica's own copy of a weight, with its own copy of what is beside it."""
        for pair in zip(weights, beside, strict=True):
            local = (self._strategy.experimental_local_results(variable) for variable in pair)
            yield from zip(*local, strict=True)

    def _blocks(self) -> Iterator[tuple[tf.Tensor, tf.Variable, tf.Variable]]:
        """(rows, table, offset): some rows at a time, so that no second table is held."""
        for table, offset in self._pairs(self._tables, self._offsets()):
            for start in range(0, table.shape[0], _BLOCK_ROWS):
                with tf.device(table.device):
                    yield tf.range(start, min(start + _BLOCK_ROWS, table.shape[0])), table, offset


def _zeros_beside(weight: tf.Variable) -> tf.Variable:
    return tf.Variable(
        lambda: tf.zeros(weight.shape),
        name="mean",
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
