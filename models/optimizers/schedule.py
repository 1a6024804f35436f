"""Learning rates as functions of the step and of the batch size."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tensorflow as tf

from models.config.train import TrainConfig
from models.keras2 import keras

__all__ = ["LearningRate", "ScaledRates", "scale_rates"]


@dataclasses.dataclass(frozen=True)
class ScaledRates:
    """What a scaling rule makes of the rates in the config.

    Attributes:
        dense: peak learning rate of all variables but the tables.
        embedding: peak learning rate of the tables.
        embedding_l2: L2 strength on touched rows.
        warmup_steps: steps of linear warm-up.
    """

    dense: float
    embedding: float
    embedding_l2: float
    warmup_steps: int


def scale_rates(config: TrainConfig, steps_per_epoch: int) -> ScaledRates:
    """Rates for the configured batch size, by `ScalingConfig`'s table.

    Args:
        config: rates that hold at `scaling.base_batch_size`.
        steps_per_epoch: at the configured batch size.
    """
    s = config.global_batch_size / config.scaling.base_batch_size
    dense, embedding, l2 = {
        "none": (1.0, 1.0, 1.0),
        "linear": (s, s, 1.0),
        "sqrt": (math.sqrt(s), math.sqrt(s), math.sqrt(s)),
        "cowclip": (math.sqrt(s), 1.0, s),
    }[config.scaling.rule]
    warmup = config.schedule.warmup_steps
    if not warmup and config.scaling.rule != "none" and s > 1:
        warmup = math.ceil(config.scaling.warmup_epochs * steps_per_epoch)
    return ScaledRates(
        dense=config.learning_rate * dense,
        embedding=config.embedding_learning_rate * embedding,
        embedding_l2=config.embedding_l2 * l2,
        warmup_steps=warmup,
    )


@keras.utils.register_keras_serializable(package="clickparity")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to `peak`, then constant, or cosine or linear down to final_factor * peak.

    Args:
        peak: after the warm-up.
        kind: "constant", "cosine" or "linear".
        warmup_steps: step i < warmup_steps has the rate peak * (i + 1) / warmup_steps.
        total_steps: where cosine and linear end.
        final_factor: what they end at.
    """

    def __init__(
        self,
        peak: float,
        *,
        kind: str = "constant",
        warmup_steps: int = 0,
        total_steps: int = 1,
        final_factor: float = 0.0,
    ) -> None:
        self.peak, self.kind, self.warmup_steps = peak, kind, warmup_steps
        self.total_steps, self.final_factor = total_steps, final_factor

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate of a step counted from 0."""
        step = tf.cast(step, tf.float32)
        factor = tf.constant(1.0)
        if self.kind != "constant":
            decay_steps = max(1, self.total_steps - self.warmup_steps)
            done = tf.clip_by_value((step - self.warmup_steps) / decay_steps, 0.0, 1.0)
            left = 1.0 - done if self.kind == "linear" else 0.5 * (1.0 + tf.cos(math.pi * done))
            factor = self.final_factor + (1.0 - self.final_factor) * left
        if self.warmup_steps:
            factor *= tf.minimum(1.0, (step + 1.0) / self.warmup_steps)
        return self.peak * factor

    def get_config(self) -> dict[str, Any]:
        """Everything that the constructor takes."""
        return {
            "peak": self.peak,
            "kind": self.kind,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "final_factor": self.final_factor,
        }
