"""Losses for rare clicks, on logits: per-example values, weighted sums, and one global mean.

What is optimised decides which number a logit is. `pos_weight` and `focal` shift it away from the
log odds of a click; `models.calibration` holds the inverse of each.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.config.train import BinaryCrossEntropyConfig, FocalConfig, LossConfig, PosWeightConfig
from models.keras2 import keras
from pipeline.errors import ConfigError

__all__ = [
    "ClickLoss",
    "binary_cross_entropy",
    "focal_loss",
    "pos_weighted_cross_entropy",
    "resolve_loss",
    "sum_over_replicas",
]


def binary_cross_entropy(label: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """-(y ln p + (1 - y) ln(1 - p)), p = sigmoid(logits).

    Args:
        label: [batch], in [0, 1].
        logits: [batch].

    Returns:
        [batch], in nats.
    """
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=label, logits=logits)


def pos_weighted_cross_entropy(label: tf.Tensor, logits: tf.Tensor, pos_weight: float) -> tf.Tensor:
    """-(w y ln p + (1 - y) ln(1 - p)); its minimiser is the log odds + ln w.

    Args:
        label: [batch], in [0, 1].
        logits: [batch].
        pos_weight: w > 0.

    Returns:
        [batch], in nats.
    """
    # Not tf.nn.weighted_cross_entropy_with_logits: its gradient is wrong at a logit of exactly 0,
    # where a zero-initialised output layer starts.
    click, no_click = tf.nn.softplus(-logits), tf.nn.softplus(logits)
    return pos_weight * label * click + (1.0 - label) * no_click


def focal_loss(label: tf.Tensor, logits: tf.Tensor, alpha: float, gamma: float) -> tf.Tensor:
    """-(a y (1 - p)^g ln p + (1 - a)(1 - y) p^g ln(1 - p)) (Lin et al., arXiv 1708.02002, eq. 5).

    Written with softplus, so that neither the value nor the gradient is NaN at saturated logits,
    which (1 - p)^g is for 0 < g < 1.

    Args:
        label: [batch], in [0, 1].
        logits: [batch].
        alpha: weight of the clicks, in (0, 1); 1 - alpha that of the others.
        gamma: focusing exponent, >= 0; 0 is alpha-weighted cross entropy.

    Returns:
        [batch], in nats.
    """
    minus_log_p = tf.nn.softplus(-logits)
    minus_log_not_p = tf.nn.softplus(logits)
    click = alpha * tf.exp(-gamma * minus_log_not_p) * minus_log_p
    no_click = (1.0 - alpha) * tf.exp(-gamma * minus_log_p) * minus_log_not_p
    return label * click + (1.0 - label) * no_click


def resolve_loss(config: LossConfig, label_rate: float) -> LossConfig:
    """The loss with "balanced" replaced by its number: (1 - rate) / rate, odds against a click.

    Args:
        config: as configured.
        label_rate: weighted share of clicks in the training split, as written.

    Raises:
        ConfigError: balanced over data that is all clicks or none.
    """
    if not isinstance(config, PosWeightConfig) or config.pos_weight != "balanced":
        return config
    if not 0.0 < label_rate < 1.0:
        raise ConfigError(
            "a balanced pos_weight needs clicks and non-clicks in the training rows",
            f"label rate {label_rate:g}",
            "Give train.loss.pos_weight a number, or preprocess more rows.",
        )
    return config.model_copy(update={"pos_weight": (1.0 - label_rate) / label_rate})


@keras.utils.register_keras_serializable(package="clickparity")
class ClickLoss(keras.losses.Loss):
    """A configured loss as the Keras object that the TFRS `Ranking` task takes.

    Reduction SUM by default: under `MirroredStrategy` the sum over replicas is divided by the
    global weight; a mean per replica would weigh a short replica's rows more.

    Args:
        config: a resolved loss (`resolve_loss`).
        reduction: "sum", or "none" for per-example values.

    Raises:
        ConfigError: when pos_weight is still "balanced".
    """

    def __init__(self, config: LossConfig, reduction: str = "sum", name: str | None = None) -> None:
        super().__init__(reduction=reduction, name=name or config.kind)
        if isinstance(config, PosWeightConfig) and config.pos_weight == "balanced":
            raise ConfigError(
                "a loss is built from a number", config.pos_weight, "Call resolve_loss first."
            )
        self.config = config

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Per-example values, [batch]: float32 whatever the precision of the logits."""
        label, logits = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
        if isinstance(self.config, FocalConfig):
            return focal_loss(label, logits, self.config.alpha, self.config.gamma)
        if isinstance(self.config, PosWeightConfig):
            return pos_weighted_cross_entropy(label, logits, float(self.config.pos_weight))
        return binary_cross_entropy(label, logits)

    def get_config(self) -> dict[str, Any]:
        """The loss as plain data."""
        return {**super().get_config(), "config": self.config.model_dump()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ClickLoss:
        """The loss that `get_config` described."""
        kinds = {
            "bce": BinaryCrossEntropyConfig,
            "pos_weight": PosWeightConfig,
            "focal": FocalConfig,
        }
        loss = config["config"]
        return cls(kinds[loss["kind"]](**loss), config["reduction"], config["name"])


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """The sum of a scalar over all replicas, on each of them.

    A replica's weighted loss sum divided by this sum of its weights is its share of the mean over
    the global batch; a mean per replica would weigh a short replica's rows more.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
