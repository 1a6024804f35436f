"""The compiled training step: forward, loss, backward, update on every replica, several a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import tensorflow as tf

# isort: split
import models.keras2  # noqa: F401 - before TFRS, which refuses Keras 3 when it is imported

# isort: split
import tensorflow_recommenders as tfrs

from models.losses import ClickLoss, global_mean
from models.optimizers import CompositeOptimizer

if TYPE_CHECKING:
    from models.zoo.base import CTRModel

__all__ = ["BESIDE_INPUTS", "make_strategy", "make_train_steps", "model_inputs"]

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
        except RuntimeError:
            break  # the process has initialised its GPUs already, as it wished
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
) -> TrainSteps:
    """Compiles the training loop's inner part.

    Args:
        model: built in the strategy's scope.
        optimizer: built in the strategy's scope, for `model.trainable_variables`.
        loss: per-example loss, summed.
        strategy: over the replicas.

    Returns:
        A function of (iterator over distributed global batches, how many steps) that trains and
        returns (sum of weighted losses, sum of weights) of those steps, float64 scalars. Every
        number of steps runs the same graph, so that where a run is cut changes no bit.
    """
    task = tfrs.tasks.Ranking(loss=loss)
    variables = model.trainable_variables

    def replica_step(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = model(model_inputs(batch), training=True)
            loss_sum = task(
                labels=batch["label"],
                predictions=logits,
                sample_weight=batch["weight"],
                compute_metrics=False,
            )
            objective = global_mean(loss_sum, batch["weight"])
            if model.losses:
                objective += tf.add_n(model.losses) / strategy.num_replicas_in_sync
        gradients = tape.gradient(objective, variables)
        optimizer.apply_gradients(gradients, variables)
        return loss_sum, tf.reduce_sum(batch["weight"])

    @tf.function(reduce_retracing=True)
    def train_steps(iterator: Iterator[Any], num_steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss_total, weight_total = tf.zeros([], tf.float64), tf.zeros([], tf.float64)
        for _ in tf.range(num_steps):
            outputs = strategy.run(replica_step, args=(next(iterator),))
            loss_sum, weight = (
                tf.cast(strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None), tf.float64)
                for part in outputs
            )
            model.advance_step()
            loss_total += loss_sum
            weight_total += weight
        return loss_total, weight_total

    return train_steps
