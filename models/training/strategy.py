"""How one training is spread over devices: which replicas there are, and each one's part of a batch.

Here alone it is decided: the trainer and the step ask the strategy and name no device. What a run
leaves behind is written by `models.training.loop.Training` alone, in `_save`, `_end_epoch`, `_finish`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from pipeline.errors import ConfigError

__all__ = ["distributed_batches", "make_strategy", "per_replica_batch_size", "values_by_replica"]


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


def per_replica_batch_size(global_batch_size: int, replicas: int) -> int:
    """Rows of one step on one replica.

    Raises:
        ConfigError: replicas would get unequal parts, of which batch norm would make unequal rows.
    """
    if global_batch_size % replicas:
        nearest = max(1, round(global_batch_size / replicas)) * replicas
        raise ConfigError(
            "train.global_batch_size must be a multiple of the number of replicas",
            f"{global_batch_size} rows over {replicas} replicas",
            f"Set train.global_batch_size={nearest}.",
        )
    return global_batch_size // replicas


def distributed_batches(
    strategy: tf.distribute.Strategy, batches: tf.data.Dataset
) -> Iterator[Any]:
    """Iterates over global batches, each divided equally among the replicas, in order."""
    return iter(strategy.experimental_distribute_dataset(batches))


def values_by_replica(strategy: tf.distribute.Strategy, values: list[Any]) -> list[list[Any]]:
    """A list of per-replica values (or None) as one list for each replica."""
    parts = [
        [None] * strategy.num_replicas_in_sync
        if value is None
        else list(strategy.experimental_local_results(value))
        for value in values
    ]
    return [list(replica) for replica in zip(*parts, strict=True)]
