"""The compiled training step: forward, loss, backward, update on every replica, several a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import tensorflow as tf

# isort: split
import models.keras2  # noqa: F401 - before TFRS, which refuses Keras 3 when it is imported

# isort: split
import tensorflow_recommenders as tfrs

from models.losses import ClickLoss, sum_over_replicas
from models.optimizers import CompositeOptimizer
from models.training.host_memory import keep_freed_memory

if TYPE_CHECKING:
    from models.zoo.base import CTRModel

__all__ = ["BESIDE_INPUTS", "Batch", "make_strategy", "make_train_steps", "model_inputs"]

BESIDE_INPUTS = ("label", "weight", "carry")
Batch = dict[str, tf.Tensor]
TrainSteps = Callable[[Iterator[Any], tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def make_strategy(
    devices: list[str] | None = None, cross_replica: str = "auto"
) -> tf.distribute.MirroredStrategy:
    """Mirrors over all local GPUs, or over the one CPU where there is none.

    Args:
        devices: names to use instead ("CPU:0", "CPU:1" are logical devices in tests).
        cross_replica: "nccl", "hierarchical_copy", "reduction_to_one", or "auto".
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except (RuntimeError, ValueError):
            continue  # the process has initialised or divided this GPU already, as it wished
    if devices is None:
        gpus = tf.config.list_logical_devices("GPU")
        devices = [gpu.name for gpu in gpus] or ["CPU:0"]
    sums = {
        "auto": lambda: None,
        "nccl": tf.distribute.NcclAllReduce,
        "hierarchical_copy": tf.distribute.HierarchicalCopyAllReduce,
        "reduction_to_one": tf.distribute.ReductionToOneDevice,
    }[cross_replica]()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=sums)


def model_inputs(batch: Batch) -> Batch:
    """The part of an encoded batch that a model may see."""
    return {name: value for name, value in batch.items() if name not in BESIDE_INPUTS}


def make_train_steps(
    model: CTRModel,
    optimizer: CompositeOptimizer,
    loss: ClickLoss,
    strategy: tf.distribute.Strategy,
    *,
    xla: bool = False,
) -> TrainSteps:
    """Compiles the training loop's inner part.

    Args:
        model: built in the strategy's scope.
        optimizer: built in the strategy's scope, for `model.trainable_variables`.
        loss: per-example loss, summed.
        strategy: over the replicas.
        xla: compile forward and backward pass; updates and sums over replicas stay outside.

    Returns:
        A function of (iterator over distributed global batches, how many steps) that trains and
        returns (sum of weighted losses, sum of weights) of those steps, float64 scalars. Every
        number of steps runs the same graph, so that where a run is cut changes no bit.
    """
    task = tfrs.tasks.Ranking(loss=loss)
    variables = model.trainable_variables

    def loss_and_gradients(
        batch: Batch, global_weight: tf.Tensor, scale: tf.Tensor
    ) -> tuple[tf.Tensor, list[Any]]:
        with tf.GradientTape() as tape:
            logits = model(model_inputs(batch), training=True)
            loss_sum = task(
                labels=batch["label"],
                predictions=logits,
                sample_weight=batch["weight"],
                compute_metrics=False,
            )
            objective = tf.math.divide_no_nan(loss_sum, global_weight)
            if model.losses:
                objective += tf.add_n(model.losses) / strategy.num_replicas_in_sync
            objective *= scale
        return loss_sum, tape.gradient(objective, variables)

    if xla:
        loss_and_gradients = tf.function(loss_and_gradients, jit_compile=True, autograph=False)

    def replica_gradients(batch: Batch) -> tuple[tf.Tensor, tf.Tensor, list[Any], list[Any]]:
        weight = tf.reduce_sum(batch["weight"])
        loss_sum, gradients = loss_and_gradients(
            batch, sum_over_replicas(weight), optimizer.scale_of_loss()
        )
        gradients, to_host = optimizer.split_host(gradients, variables)
        return loss_sum, weight, optimizer.reduce_gradients(gradients), to_host

    def replica_step(batch: Batch) -> tuple[tf.Tensor, tf.Tensor, list[Any]]:
        loss_sum, weight, gradients, to_host = replica_gradients(batch)
        optimizer.apply_reduced(gradients, variables)
        return loss_sum, weight, to_host

    def one_step(batch: Batch) -> tuple[Any, Any]:
        if not optimizer.is_loss_scaled:
            loss_sum, weight, to_host = strategy.run(replica_step, args=(batch,))
            if optimizer.has_host_tables:
                optimizer.apply_to_host(_by_replica(strategy, to_host), variables)
            return loss_sum, weight
        # Whether to update is decided between the replicas' steps: a condition inside one of them
        # could not hold the meeting of all.
        loss_sum, weight, gradients, _ = strategy.run(replica_gradients, args=(batch,))
        finite = optimizer.all_finite(_by_replica(strategy, gradients)[0])

        def update() -> tf.Tensor:
            strategy.run(lambda g: optimizer.apply_reduced(g, variables), args=(gradients,))
            return tf.constant(0)

        tf.cond(finite, update, lambda: tf.constant(0))
        optimizer.adapt_scale(finite)
        return loss_sum, weight

    @tf.function(reduce_retracing=True)
    def compiled(iterator: Iterator[Any], num_steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss_total, weight_total = tf.zeros([], tf.float64), tf.zeros([], tf.float64)
        for _ in tf.range(num_steps):
            outputs = one_step(next(iterator))
            loss_sum, weight = (
                tf.cast(strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None), tf.float64)
                for part in outputs
            )
            model.advance_step()
            loss_total += loss_sum
            weight_total += weight
        return loss_total, weight_total

    def train_steps(iterator: Iterator[Any], num_steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        keep_freed_memory()  # here, not earlier: making the iterator had set it otherwise
        result: tuple[tf.Tensor, tf.Tensor] = compiled(iterator, num_steps)
        return result

    return train_steps


def _by_replica(strategy: tf.distribute.Strategy, gradients: list[Any]) -> list[list[Any]]:
    """A list of per-replica gradients as one list for each replica."""
    parts = [
        [None] * strategy.num_replicas_in_sync
        if gradient is None
        else list(strategy.experimental_local_results(gradient))
        for gradient in gradients
    ]
    return [list(replica) for replica in zip(*parts, strict=True)]
