"""Batch normalization."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from models.norms.base import NORMS, AxisKind, Layer, NormConfig

__all__ = ["BatchNormConfig"]


@NORMS.add
class BatchNormConfig(NormConfig):
    """Batch statistics in training, moving ones in serving: the scores differ.

    One mean and variance per unit, dim or channel, over all rows, fields and pixels of the batch.

    Attributes:
        momentum: batch only; the share of the old moving statistic that a step keeps.
        synchronized: batch only; False (the default) means each replica normalizes by its own part
            of the global batch, so the result depends on the number of replicas; True averages over
            all of them.
    """

    paper: ClassVar[str] = "Ioffe and Szegedy 2015, 1502.03167"
    uses_batch_statistics: ClassVar[bool] = True
    kind: Literal["batch"] = "batch"
    momentum: float = Field(0.99, ge=0, lt=1)
    synchronized: bool = False

    def make_layer(self, axis_kind: AxisKind) -> Layer:
        """Keras' own, over the last axis."""
        from models.keras2 import keras

        del axis_kind
        return keras.layers.BatchNormalization(
            axis=-1, momentum=self.momentum, epsilon=self.epsilon, synchronized=self.synchronized
        )
