"""Residual calibrators: monotone functions of the log odds, as graph-safe elementwise modules."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from models.calibration.correction import LossCorrection
from pipeline.errors import ConfigError

__all__ = [
    "Calibration",
    "IdentityCalibrator",
    "IsotonicCalibrator",
    "PlattCalibrator",
    "Residual",
]


class Residual(tf.Module):
    """A strictly rising function of the log odds: it never changes an order."""

    kind: ClassVar[str]

    def correct(self, z: tf.Tensor) -> tf.Tensor:
        """Log odds float64, any shape -> calibrated log odds float64, the same shape."""
        raise NotImplementedError

    def to_config(self) -> dict[str, Any]:
        """The calibrator as plain JSON data, its `kind` included."""
        raise NotImplementedError


class IdentityCalibrator(Residual):
    """Leaves the log odds as they are."""

    kind = "identity"

    def correct(self, z: tf.Tensor) -> tf.Tensor:
        """The same tensor."""
        return z

    def to_config(self) -> dict[str, Any]:
        """Its kind."""
        return {"kind": self.kind}


class PlattCalibrator(Residual):
    """slope * z + intercept (Platt 1999).

    Raises:
        ConfigError: slope is not positive, or a number is not finite.
    """

    kind = "platt"

    def __init__(self, slope: float, intercept: float) -> None:
        super().__init__(name=self.kind)
        if not (0.0 < slope < np.inf and np.isfinite(intercept)):
            raise ConfigError(
                "a Platt calibrator needs a positive slope and finite numbers",
                f"slope={slope}, intercept={intercept}",
                "Fit it on rows that the model ranks better than chance.",
            )
        self.slope, self.intercept = float(slope), float(intercept)

    def correct(self, z: tf.Tensor) -> tf.Tensor:
        """The line."""
        return self.slope * z + self.intercept

    def to_config(self) -> dict[str, Any]:
        """Its kind, slope and intercept."""
        return {"kind": self.kind, "slope": self.slope, "intercept": self.intercept}


class IsotonicCalibrator(Residual):
    """Piecewise linear in log odds through fixed knots; beyond the outermost, slope 1.

    Unlike a step function it keeps the order of rows, and beyond the knots it keeps the model's
    distances, so no logit leaves its domain.

    Args:
        inputs: log odds of the knots, strictly rising, one or more.
        outputs: calibrated log odds at them, strictly rising.

    Raises:
        ConfigError: the knots do not rise strictly, differ in number, or are not finite.
    """

    kind = "isotonic"

    def __init__(self, inputs: ArrayLike, outputs: ArrayLike) -> None:
        super().__init__(name=self.kind)
        x, y = np.asarray(inputs, np.float64), np.asarray(outputs, np.float64)
        rising = x.ndim == 1 and len(x) > 0 and x.shape == y.shape
        rising = rising and bool(np.isfinite(x).all() and np.isfinite(y).all())
        if not (rising and (np.diff(x) > 0).all() and (np.diff(y) > 0).all()):
            raise ConfigError(
                "isotonic knots must be finite and rise strictly, as many inputs as outputs",
                f"inputs={x.tolist()}, outputs={y.tolist()}",
                "Fit it again.",
            )
        self._inputs, self._outputs = x, y
        # Segment i lies left of knot i and starts at knot i - 1; the first starts at knot 0 too.
        self._slopes = np.concatenate([[1.0], np.diff(y) / np.diff(x), [1.0]])
        self._starts = np.concatenate([x[:1], x])
        self._start_outputs = np.concatenate([y[:1], y])

    def correct(self, z: tf.Tensor) -> tf.Tensor:
        """The line of the segment that each logit lies in."""
        flat = tf.reshape(z, [-1])
        segment = tf.searchsorted(tf.constant(self._inputs, z.dtype), flat, side="right")
        start, slope, base = (
            tf.gather(tf.constant(table, z.dtype), segment)
            for table in (self._starts, self._slopes, self._start_outputs)
        )
        return tf.reshape(base + slope * (flat - start), tf.shape(z))

    def to_config(self) -> dict[str, Any]:
        """Its kind and knots."""
        return {
            "kind": self.kind,
            "inputs": self._inputs.tolist(),
            "outputs": self._outputs.tolist(),
        }


_RESIDUALS: dict[str, type[Residual]] = {
    cls.kind: cls for cls in (IdentityCalibrator, PlattCalibrator, IsotonicCalibrator)
}


class Calibration(tf.Module):
    """Raw logits -> calibrated log odds of a click: the loss's correction, then the residual.

    Elementwise and free of state, so a row has the same bits in any batch; part of the exported
    graph.

    Args:
        correction: exact inverse of the loss and the sampling; none by default.
        residual: fitted on rows held out from training; identity by default.
    """

    def __init__(
        self, correction: LossCorrection | None = None, residual: Residual | None = None
    ) -> None:
        super().__init__(name="calibration")
        self.correction = correction or LossCorrection()
        self.residual = residual or IdentityCalibrator()

    def logits(self, raw_logits: tf.Tensor) -> tf.Tensor:
        """Raw logits, any float type and shape -> calibrated log odds float32, the same shape."""
        z = tf.cast(raw_logits, tf.float64)
        return tf.cast(self.residual.correct(self.correction.correct(z)), tf.float32)

    def probability(self, raw_logits: tf.Tensor) -> tf.Tensor:
        """Raw logits, any float type and shape -> click probability float32, the same shape."""
        return tf.cast(tf.sigmoid(tf.cast(self.logits(raw_logits), tf.float64)), tf.float32)

    def to_config(self) -> dict[str, Any]:
        """Both parts as plain JSON data."""
        return {"correction": self.correction.to_config(), "residual": self.residual.to_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Calibration:
        """The calibration that `to_config` described, to the last bit.

        Raises:
            ConfigError: the kind of residual is unknown, or its numbers are impossible.
        """
        residual = dict(config["residual"])
        kind = residual.pop("kind", None)
        if kind not in _RESIDUALS:
            raise ConfigError(
                "the residual's kind must be a known one",
                kind,
                f"Allowed: {', '.join(_RESIDUALS)}.",
            )
        return cls(LossCorrection.from_config(config["correction"]), _RESIDUALS[kind](**residual))
