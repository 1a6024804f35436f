"""Where a training's batches come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from models.config.train import TrainConfig
from pipeline.records.data_directory import DataDirectory
from pipeline.records.dataset import evaluation_batches, steps_per_epoch, training_batches
from pipeline.records.encoded import EncodedSpec

__all__ = ["BatchSource"]


@dataclasses.dataclass(frozen=True)
class BatchSource:
    """Where batches come from: files in production, memory in tests.

    Attributes:
        spec: of every batch.
        steps_per_epoch: global batches that show every training row once.
        label_rate: weighted share of clicks in the training rows.
        training: (epoch, first step) -> that epoch's batches of exactly the global batch size.
        validation: -> the hold-out's batches in order; None without one.
    """

    spec: EncodedSpec
    steps_per_epoch: int
    label_rate: float
    training: Callable[[int, int], tf.data.Dataset]
    validation: Callable[[], tf.data.Dataset] | None

    @classmethod
    def of(cls, data: DataDirectory, config: TrainConfig) -> BatchSource:
        """The batches of a data directory."""
        size, seed = config.global_batch_size, config.seed

        def training(epoch: int, first_step: int) -> tf.data.Dataset:
            return training_batches(
                data, batch_size=size, seed=seed, epoch=epoch, first_step=first_step
            )

        def validation() -> tf.data.Dataset:
            return evaluation_batches(data, "validation", config.evaluation_batch_size)

        return cls(
            spec=data.spec,
            steps_per_epoch=steps_per_epoch(data, size),
            label_rate=data.label_rate("train"),
            training=training,
            validation=validation if data.num_rows("validation") else None,
        )
