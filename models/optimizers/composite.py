"""One optimizer for a whole model: a row-sparse one for the tables, a dense one for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from models.keras2 import keras

__all__ = ["CompositeOptimizer", "clip_by_global_norm", "sum_duplicates"]


class CompositeOptimizer(tf.Module):
    """Routes each gradient to the optimizer of its variable; a `tf.train.Checkpoint` holds both.

    Make it and `build` it inside the strategy's scope.

    Args:
        dense: for every variable that is not a table.
        sparse: for the tables.
        gradient_clip_norm: bound of the global norm over all gradients, tables' summed rows
            included; None for no bound.
    """

    def __init__(
        self,
        dense: keras.optimizers.Optimizer,
        sparse: keras.optimizers.Optimizer,
        *,
        gradient_clip_norm: float | None = None,
    ) -> None:
        super().__init__(name="composite_optimizer")
        self.dense = dense
        self.sparse = sparse
        self.gradient_clip_norm = gradient_clip_norm
        self._is_sparse: list[bool] = []

    def build(self, variables: Sequence[tf.Variable], tables: Iterable[tf.Variable]) -> None:
        """Makes all slots.

        Args:
            variables: every trainable variable, in the order in which gradients will come.
            tables: those among them that the sparse optimizer trains.
        """
        keys = {id(table) for table in tables}
        self._is_sparse = [id(variable) in keys for variable in variables]
        self.dense.build(_select(variables, self._is_sparse, False))
        self.sparse.build(_select(variables, self._is_sparse, True))

    def apply_gradients(self, gradients: Sequence[Any], variables: Sequence[tf.Variable]) -> None:
        """Sums gradients over replicas, clips them and updates. Call it in a replica context.

        Args:
            gradients: one for each variable; IndexedSlices for tables.
            variables: those given to `build`, in that order.
        """
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
        if self.gradient_clip_norm is not None:
            gradients = clip_by_global_norm(gradients, self.gradient_clip_norm)
        for optimizer, sparse in ((self.dense, False), (self.sparse, True)):
            mine = _select(variables, self._is_sparse, sparse)
            if mine:
                pairs = zip(_select(gradients, self._is_sparse, sparse), mine, strict=True)
                optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)


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


def _select(items: Sequence[Any], flags: Sequence[bool], wanted: bool) -> list[Any]:
    return [item for item, flag in zip(items, flags, strict=True) if flag is wanted]
