"""One optimizer for a whole model: a row-sparse one for the tables, a dense one for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from models.keras2 import keras

__all__ = ["CompositeOptimizer", "clip_by_global_norm", "sum_duplicates"]

_FIRST_SCALE, _LARGEST_SCALE, _GROWTH_STEPS = 2.0**15, 2.0**24, 2000


class CompositeOptimizer(tf.Module):
    """Routes each gradient to the optimizer of its variable; a `tf.train.Checkpoint` holds both.

    Make the optimizers and `build` this inside the strategy's scope; with tables on the host, make
    the sparse one outside and call `build_host_tables` there.

    Args:
        dense: for every variable that is not a table.
        sparse: for the tables.
        gradient_clip_norm: bound of the global norm over all gradients, tables' summed rows
            included; None for no bound.
        loss_scaling: dynamic loss scaling, which float16 needs (Micikevicius et al. 2018).
    """

    def __init__(
        self,
        dense: keras.optimizers.Optimizer,
        sparse: keras.optimizers.Optimizer,
        *,
        gradient_clip_norm: float | None = None,
        loss_scaling: bool = False,
    ) -> None:
        super().__init__(name="composite_optimizer")
        self.dense = dense
        self.sparse = sparse
        self.gradient_clip_norm = gradient_clip_norm
        self._tables: frozenset[int] = frozenset()
        self._host_tables: frozenset[int] = frozenset()
        self._scale = tf.Variable(_FIRST_SCALE, trainable=False) if loss_scaling else None
        self._good_steps = tf.Variable(0, trainable=False)

    def build(self, variables: Sequence[tf.Variable], tables: Iterable[tf.Variable]) -> None:
        """Makes all slots.

        Args:
            variables: every trainable variable.
            tables: those among them that the sparse optimizer trains.
        """
        self._tables = frozenset(id(table) for table in tables)
        self.dense.build([v for v in variables if id(v) not in self._tables])
        if self._tables:
            self.sparse.build([v for v in variables if id(v) in self._tables])

    def build_host_tables(
        self, variables: Sequence[tf.Variable], tables: Iterable[tf.Variable]
    ) -> None:
        """Makes the slots of tables on the host beside them. Call it outside the strategy's scope.

        Args:
            variables: every trainable variable; `build` was called without tables.
            tables: those among them that live on the host.
        """
        self._host_tables = frozenset(id(table) for table in tables)
        self.sparse.build([v for v in variables if id(v) in self._host_tables])

    @property
    def has_host_tables(self) -> bool:
        """Whether `apply_to_host` must follow the replicas' step."""
        return bool(self._host_tables)

    def split_host(
        self, gradients: Sequence[Any], variables: Sequence[tf.Variable]
    ) -> tuple[list[Any], list[Any]]:
        """(gradients with None for host tables, gradients with None for all others)."""
        host = [id(variable) in self._host_tables for variable in variables]
        return (
            [None if on_host else g for g, on_host in zip(gradients, host, strict=True)],
            [g if on_host else None for g, on_host in zip(gradients, host, strict=True)],
        )

    def apply_to_host(
        self, by_replica: Sequence[Sequence[Any]], variables: Sequence[tf.Variable]
    ) -> None:
        """Updates the host tables once from the gradients of all replicas.

        Call it outside any replica and outside the strategy's scope.

        Args:
            by_replica: for each replica its gradients, None for what is not a host table.
            variables: as given to `build_host_tables`.
        """
        pairs = []
        for variable, *parts in zip(variables, *by_replica, strict=True):
            slices = [part for part in parts if part is not None]
            if slices:
                values = tf.concat([part.values for part in slices], axis=0)
                rows = tf.concat([part.indices for part in slices], axis=0)
                pairs.append((tf.IndexedSlices(values, rows, slices[0].dense_shape), variable))
        with tf.device("CPU:0"):
            self.sparse.apply_gradients(pairs, skip_gradients_aggregation=True)

    @property
    def is_loss_scaled(self) -> bool:
        """Whether steps may be skipped, so that `apply_reduced` belongs in a condition."""
        return self._scale is not None

    def scale_of_loss(self) -> tf.Tensor:
        """What the loss is multiplied by; `reduce_gradients` divides by it again."""
        return tf.constant(1.0) if self._scale is None else self._scale.read_value()

    def apply_gradients(self, gradients: Sequence[Any], variables: Sequence[tf.Variable]) -> None:
        """Sums gradients over replicas, clips them and updates. Call it in a replica context.

        Args:
            gradients: one for each variable; IndexedSlices for tables; None leaves it alone.
            variables: those given to `build`.
        """
        self.apply_reduced(self.reduce_gradients(gradients), variables)

    def reduce_gradients(self, gradients: Sequence[Any]) -> list[Any]:
        """Sums over replicas, takes the loss scale out and clips; the same on every replica."""
        given = [gradient for gradient in gradients if gradient is not None]
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            given = context.all_reduce(tf.distribute.ReduceOp.SUM, given)
        if self._scale is not None:
            given = [_times(gradient, 1.0 / self.scale_of_loss()) for gradient in given]
        if self.gradient_clip_norm is not None:
            given = clip_by_global_norm(given, self.gradient_clip_norm)
        reduced = iter(given)
        return [None if gradient is None else next(reduced) for gradient in gradients]

    def apply_reduced(self, gradients: Sequence[Any], variables: Sequence[tf.Variable]) -> None:
        """Updates from gradients that `reduce_gradients` returned."""
        for optimizer, sparse in ((self.dense, False), (self.sparse, True)):
            pairs = [
                (gradient, variable)
                for gradient, variable in zip(gradients, variables, strict=True)
                if gradient is not None and (id(variable) in self._tables) is sparse
            ]
            if pairs:
                optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)

    @staticmethod
    def all_finite(gradients: Sequence[Any]) -> tf.Tensor:
        """Whether every number of every gradient is finite; a bool scalar."""
        values = [_values(gradient) for gradient in gradients if gradient is not None]
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in values])

    def adapt_scale(self, finite: tf.Tensor) -> None:
        """Halves the loss scale after an overflow, doubles it after 2,000 steps without one."""
        if self._scale is None:
            return
        good = tf.where(finite, self._good_steps + 1, 0)
        grown = good >= _GROWTH_STEPS
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        self._scale.assign(tf.clip_by_value(self._scale * factor, 1.0, _LARGEST_SCALE))
        self._good_steps.assign(tf.where(grown, 0, good))


def clip_by_global_norm(gradients: Sequence[Any], bound: float) -> list[Any]:
    """Scales all gradients together so that their global norm is at most `bound`.

    Duplicate rows of an IndexedSlices are summed first: the norm of a sum is not the sum of norms.
    """
    summed = [sum_duplicates(g) if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    clipped, _ = tf.clip_by_global_norm(summed, bound)
    return list(clipped)


def sum_duplicates(slices: tf.IndexedSlices) -> tf.IndexedSlices:
    """The same gradient with every row at most once."""
    rows, position = tf.unique(slices.indices)
    values = tf.math.unsorted_segment_sum(slices.values, position, tf.size(rows))
    return tf.IndexedSlices(values, rows, slices.dense_shape)


def _values(gradient: Any) -> tf.Tensor:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _times(gradient: Any, factor: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * factor
