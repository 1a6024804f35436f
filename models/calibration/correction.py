"""What a loss or a sampling rate does to the logits, undone exactly."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
from scipy.optimize import brentq

from models.config.train import BinaryCrossEntropyConfig, FocalConfig, LossConfig, PosWeightConfig
from models.losses import ClickLoss
from pipeline.errors import ConfigError

__all__ = ["LossCorrection", "click_pull", "prior_logit"]


def _softplus(z: tf.Tensor) -> tf.Tensor:
    return tf.maximum(z, 0.0) + tf.math.log1p(tf.exp(-tf.abs(z)))


def _softplus_over_odds(z: tf.Tensor) -> tf.Tensor:
    """softplus(z) / exp(z): 1 far below zero, 0 far above; finite and accurate everywhere."""
    # Below -40 the quotient is 1 to the last bit of a float64; above 700 exp would underflow.
    z = tf.clip_by_value(z, tf.constant(-40.0, z.dtype), tf.constant(700.0, z.dtype))
    return _softplus(z) * tf.exp(-z)


class LossCorrection(tf.Module):
    """The log odds of a click whose loss is least at the raw logits z (`models.losses`).

    - pos_weight w: z - ln w.
    - negatives kept at rate r: z + ln r.
    - focal loss with alpha a and gamma g (Lin et al., arXiv 1708.02002): with q = sigmoid(z),
      setting the derivative of the expected loss to zero gives the odds
      ((1 - a) / a) h(q) / h(1 - q), h(q) = q / ((1 - q)^g - g (1 - q)^(g - 1) q ln q), hence

          (g + 1) z + ln(1 + g s(z)) - ln(1 + g s(-z)) + ln((1 - a) / a),  s(z) = softplus(z) e^-z

      in which nothing overflows or cancels at any z.

    All compose: the loss's inverse first (the odds among the rows trained on), then the sampling.
    Exact at the minimum of the expected loss only; what a real training leaves is for the residual.

    Args:
        pos_weight: w > 0; 1 for none.
        negative_keep_rate: r in (0, 1]; 1 for none, and where the kept rows weigh 1 / r.
        focal_alpha: a in (0, 1), or None when the loss is not focal.
        focal_gamma: g >= 0, or None when the loss is not focal.

    Raises:
        ConfigError: a number is out of its range, or only one of the focal numbers is given.
    """

    def __init__(
        self,
        *,
        pos_weight: float = 1.0,
        negative_keep_rate: float = 1.0,
        focal_alpha: float | None = None,
        focal_gamma: float | None = None,
    ) -> None:
        super().__init__(name="loss_correction")
        if not 0.0 < pos_weight < math.inf:
            raise ConfigError("pos_weight must be positive and finite", pos_weight, "Try 1.")
        if not 0.0 < negative_keep_rate <= 1.0:
            raise ConfigError(
                "negative_keep_rate must lie in (0, 1]", negative_keep_rate, "1 keeps all."
            )
        if (focal_alpha is None) != (focal_gamma is None):
            raise ConfigError(
                "focal_alpha and focal_gamma belong together",
                f"focal_alpha={focal_alpha}, focal_gamma={focal_gamma}",
                "Give both or none.",
            )
        if focal_alpha is not None and not 0.0 < focal_alpha < 1.0:
            raise ConfigError("focal_alpha must lie in (0, 1)", focal_alpha, "Try 0.25.")
        if focal_gamma is not None and not 0.0 <= focal_gamma < math.inf:
            raise ConfigError("focal_gamma must be 0 or more and finite", focal_gamma, "Try 2.")
        self.pos_weight = float(pos_weight)
        self.negative_keep_rate = float(negative_keep_rate)
        self.focal_alpha = None if focal_alpha is None else float(focal_alpha)
        self.focal_gamma = None if focal_gamma is None else float(focal_gamma)

    @classmethod
    def of_loss(cls, loss: LossConfig, negative_keep_rate: float = 1.0) -> LossCorrection:
        """The correction of a resolved loss (`models.losses.resolve_loss`).

        Raises:
            ConfigError: pos_weight is still "balanced", or a number is out of its range.
        """
        if isinstance(loss, PosWeightConfig):
            if loss.pos_weight == "balanced":
                raise ConfigError(
                    "a correction is made from a number",
                    loss.pos_weight,
                    "Call resolve_loss first.",
                )
            return cls(pos_weight=loss.pos_weight, negative_keep_rate=negative_keep_rate)
        if isinstance(loss, FocalConfig):
            return cls(
                focal_alpha=loss.alpha,
                focal_gamma=loss.gamma,
                negative_keep_rate=negative_keep_rate,
            )
        return cls(negative_keep_rate=negative_keep_rate)

    def correct(self, z: tf.Tensor) -> tf.Tensor:
        """Raw logits float64, any shape -> log odds float64, the same shape."""
        shift = math.log(self.negative_keep_rate) - math.log(self.pos_weight)
        if self.focal_alpha is not None and self.focal_gamma is not None:
            g = self.focal_gamma
            shift += math.log1p(-self.focal_alpha) - math.log(self.focal_alpha)
            z = (
                (g + 1.0) * z
                + tf.math.log1p(g * _softplus_over_odds(z))
                - tf.math.log1p(g * _softplus_over_odds(-z))
            )
        return z + shift

    def logits(self, raw_logits: tf.Tensor) -> tf.Tensor:
        """Raw logits, any float type and shape -> log odds float32, the same shape.

        Float64 inside and cast last, so that a row has the same bits in any batch.
        """
        return tf.cast(self.correct(tf.cast(raw_logits, tf.float64)), tf.float32)

    def to_config(self) -> dict[str, Any]:
        """The correction as plain JSON data."""
        return {
            "pos_weight": self.pos_weight,
            "negative_keep_rate": self.negative_keep_rate,
            "focal_alpha": self.focal_alpha,
            "focal_gamma": self.focal_gamma,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LossCorrection:
        """The correction that `to_config` described."""
        return cls(**config)


def prior_logit(loss: LossConfig, label_rate: float) -> float:
    """The raw logit that a constant model would learn under `loss`: where a training starts.

    Args:
        loss: resolved.
        label_rate: weighted share of clicks in the training rows, as written.

    Returns:
        0 where the rate is not between 0 and 1.
    """
    if not 0.0 < label_rate < 1.0:
        return 0.0
    correction = LossCorrection.of_loss(loss)
    goal = math.log(label_rate) - math.log1p(-label_rate)

    def miss(z: float) -> float:
        return float(correction.correct(tf.constant(z, tf.float64))) - goal

    return float(brentq(miss, -40.0, 40.0))


def click_pull(loss: LossConfig, label_rate: float) -> float:
    """How hard a click pulls at its logit, over how hard it does under plain cross-entropy.

    Where a training starts, at `prior_logit`. With r the label rate and q = sigmoid(prior_logit)
    the gradient of a click is

    - plain cross-entropy: 1 - q = 1 - r, hence 1;
    - pos_weight w: w (1 - q), hence w / (1 - r + w r);
    - focal: a (1 - q)^g (1 - q - g q ln q), over 1 - r.

    Args:
        loss: resolved.
        label_rate: weighted share of clicks in the training rows, as written.

    Returns:
        1 where the rate is not between 0 and 1.
    """
    if isinstance(loss, BinaryCrossEntropyConfig) or not 0.0 < label_rate < 1.0:
        return 1.0
    logit = tf.constant(prior_logit(loss, label_rate))
    with tf.GradientTape() as tape:
        tape.watch(logit)
        value = ClickLoss(loss).call(tf.constant(1.0), logit)
    return -float(tape.gradient(value, logit)) / (1.0 - label_rate)
