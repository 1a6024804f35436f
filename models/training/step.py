"""The compiled training step: forward, loss, backward, update on every replica, several a call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import tensorflow as tf

# isort: split
import models.keras2  # noqa: F401 - before TFRS, which refuses Keras 3 when it is imported

# isort: split
import tensorflow_recommenders as tfrs

from models.losses import ClickLoss, sum_over_replicas
from models.optimizers import CompositeOptimizer
from models.training.averaging import WeightAverage
from models.training.host_memory import keep_freed_memory
from models.training.strategy import values_by_replica
from pipeline.records.encoded import model_inputs

if TYPE_CHECKING:
    from models.zoo.base import CTRModel

__all__ = ["Batch", "TrainSteps"]

Batch = dict[str, tf.Tensor]


class TrainSteps:
    """The training loop's inner part, compiled when it is first called.

    Args:
        model: built in the strategy's scope.
        optimizer: built in the strategy's scope, for `model.trainable_variables`.
        loss: per-example loss, summed.
        strategy: over the replicas.
        average: of the weights, updated in every step of its window; None: none is kept.
        xla: compile forward and backward pass; updates and sums over replicas stay outside.
    """

    def __init__(
        self,
        model: CTRModel,
        optimizer: CompositeOptimizer,
        loss: ClickLoss,
        strategy: tf.distribute.Strategy,
        *,
        average: WeightAverage | None = None,
        xla: bool = False,
    ) -> None:
        self._average = average
        self._model, self._optimizer, self._strategy = model, optimizer, strategy
        self._variables = model.trainable_variables
        self._task = tfrs.tasks.Ranking(loss=loss)
        self._backward = self._loss_and_gradients
        if xla:
            self._backward = tf.function(self._backward, jit_compile=True, autograph=False)
        self._compiled = tf.function(self._several_steps, reduce_retracing=True)

    def __call__(
        self, iterator: Iterator[Any], num_steps: tf.Tensor, averaged: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Trains on the next batches.

        Args:
            iterator: over distributed global batches.
            num_steps: how many of them, an integer scalar. Every number of steps runs the same
                graph, so that where a run is cut changes no bit.
            averaged: steps that the average of the weights covers before them, an int32 scalar; below 1
                as many are left until it begins.

        Returns:
            (sum of weighted losses, sum of weights) of those steps, float64 scalars.
        """
        keep_freed_memory()  # here, not earlier: making the iterator had set it otherwise
        result: tuple[tf.Tensor, tf.Tensor] = self._compiled(
            iterator, num_steps, tf.constant(0) if averaged is None else averaged
        )
        return result

    def _several_steps(
        self, iterator: Iterator[Any], num_steps: tf.Tensor, averaged: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        loss_total, weight_total = tf.zeros([], tf.float64), tf.zeros([], tf.float64)
        for index in tf.range(num_steps):
            outputs = self._averaged_step(next(iterator), averaged + index + 1)
            loss_sum, weight = (
                tf.cast(
                    self._strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None), tf.float64
                )
                for part in outputs
            )
            self._model.advance_step()
            loss_total += loss_sum
            weight_total += weight
        return loss_total, weight_total

    def _averaged_step(self, batch: Batch, t: tf.Tensor) -> tuple[Any, Any]:
        """A step, counted as number t of the average's window."""
        average = self._average
        if average is None:
            return self._one_step(batch)
        average.trace_scales(t)
        outputs = self._one_step(batch)
        self._strategy.run(average.update_dense, args=(t,))
        return outputs

    def _one_step(self, batch: Batch) -> tuple[Any, Any]:
        """(loss sum, weight) of each replica."""
        if self._optimizer.is_loss_scaled:
            return self._one_scaled_step(batch)
        loss_sum, weight, to_host = self._strategy.run(self._replica_step, args=(batch,))
        if self._optimizer.has_host_tables:
            by_replica = values_by_replica(self._strategy, to_host)
            self._optimizer.apply_to_host(by_replica, self._variables)
        return loss_sum, weight

    def _one_scaled_step(self, batch: Batch) -> tuple[Any, Any]:
        """A step that updates only where all gradients are finite.

        That is decided between the replicas' steps: a condition inside one of them could not hold
        the meeting of all.
        """
        optimizer, strategy = self._optimizer, self._strategy
        loss_sum, weight, gradients, _ = strategy.run(self._replica_gradients, args=(batch,))
        finite = optimizer.all_finite(values_by_replica(strategy, gradients)[0])

        def update() -> tf.Tensor:
            strategy.run(lambda g: optimizer.apply_reduced(g, self._variables), args=(gradients,))
            return tf.constant(0)

        tf.cond(finite, update, lambda: tf.constant(0))
        optimizer.adapt_scale(finite)
        return loss_sum, weight

    def _replica_step(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor, list[Any]]:
        loss_sum, weight, gradients, to_host = self._replica_gradients(batch)
        self._optimizer.apply_reduced(gradients, self._variables)
        return loss_sum, weight, to_host

    def _replica_gradients(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor, list[Any], list[Any]]:
        """Loss sum, weight, gradients summed over the replicas, this replica's of host tables."""
        weight = tf.reduce_sum(batch["weight"])
        loss_sum, gradients = self._backward(
            batch, sum_over_replicas(weight), self._optimizer.scale_of_loss()
        )
        gradients, to_host = self._optimizer.split_host(gradients, self._variables)
        return loss_sum, weight, self._optimizer.reduce_gradients(gradients), to_host

    def _loss_and_gradients(
        self, batch: Batch, global_weight: tf.Tensor, scale: tf.Tensor
    ) -> tuple[tf.Tensor, list[Any]]:
        model = self._model
        with tf.GradientTape() as tape:
            logits = model(model_inputs(batch), training=True)
            loss_sum = self._task(
                labels=batch["label"],
                predictions=logits,
                sample_weight=batch["weight"],
                compute_metrics=False,
            )
            objective = tf.math.divide_no_nan(loss_sum, global_weight)
            if model.losses:
                objective += tf.add_n(model.losses) / self._strategy.num_replicas_in_sync
            objective *= scale
        return loss_sum, tape.gradient(objective, self._variables)
