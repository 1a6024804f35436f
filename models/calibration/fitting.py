"""Fits a residual calibrator on rows held out from training, and says what it changed."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from models import metrics
from models.calibration.correction import LossCorrection
from models.calibration.residual import Calibration, IdentityCalibrator, Residual
from models.calibration.residual_fits import (
    CannotFitError,
    fit_isotonic,
    fit_platt,
    fit_platt_with_prior,
)
from models.metrics.calibration_interval import calibration_interval
from models.metrics.checked_arrays import Array, checked_rows
from pipeline.errors import ConfigError, DataError

__all__ = ["CalibrationReport", "fit_calibration"]

ResidualKind = Literal["platt", "isotonic", "identity"]

_FITTERS = {"platt": fit_platt, "isotonic": fit_isotonic}


@dataclasses.dataclass(frozen=True)
class CalibrationReport:
    """What was fitted, on what, and the metrics before and after on the same rows.

    Attributes:
        kind: the residual in force.
        reason: why it is not the one asked for; empty when it is.
        count: rows.
        clicks: weight of the clicks among them.
        raw: metrics of the raw logits.
        corrected: metrics after the loss's correction.
        calibrated: metrics after the residual too, on the rows it was fitted on.

    The metrics hold the calibration ratio's 95 % interval, calibration_ratio_low and _high.
    """

    kind: str
    reason: str
    count: int
    clicks: float
    raw: dict[str, float]
    corrected: dict[str, float]
    calibrated: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data; a metric that is not defined is NaN."""
        return dataclasses.asdict(self)


def fit_calibration(
    raw_logits: ArrayLike,
    label: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    correction: LossCorrection | None = None,
    residual: ResidualKind = "platt",
    min_clicks: int = 100,
    clusters: ArrayLike | None = None,
) -> tuple[Calibration, CalibrationReport]:
    """The calibration of a trained model, fitted on held-out rows.

    The rows must be a sample of what will be served: not down-sampled, or weighted by 1 / rate.
    Where they do not determine a calibrator the residual is the identity, and the report says why; where
    they have few clicks it is Platt's with a prior at the identity.

    Args:
        raw_logits: what the model answers in inference mode, [rows].
        label: 0 or 1, [rows].
        weight: not negative, [rows]; 1 when None.
        correction: of the loss and the sampling that the model was trained with.
        residual: "platt", "isotonic" or "identity" (none).
        min_clicks: rows of each class below which a prior at the identity is needed; with n clicks the
            mean prediction is known to about 1 / sqrt(n).
        clusters: of rows that hang together (an hour, a day), [rows]; for the interval of the ratio.

    Raises:
        DataError: impossible label, logit or weight.
        ConfigError: the kind of residual is unknown.
    """
    labels, raw, weights = checked_rows(label, raw_logits, weight)
    if not np.isfinite(raw).all():
        raise DataError(
            "logits must be finite to be calibrated",
            f"{int((~np.isfinite(raw)).sum())} infinite of {len(raw)}",
            "Check the training for divergence.",
        )
    if residual not in ("identity", *_FITTERS):
        raise ConfigError(
            "residual must be a known kind", residual, "Allowed: platt, isotonic, identity."
        )
    correction = correction or LossCorrection()
    corrected = correction.correct(tf.constant(raw, tf.float64)).numpy()
    fitted, reason = _fit_residual(residual, corrected, labels, weights, min_clicks)
    calibration = Calibration(correction, fitted)
    calibrated = fitted.correct(tf.constant(corrected, tf.float64)).numpy()
    before, between, after = (
        _metrics(labels, z, weights, clusters) for z in (raw, corrected, calibrated)
    )
    clicks = float(np.dot(labels, weights))
    return calibration, CalibrationReport(
        fitted.kind, reason, len(labels), clicks, raw=before, corrected=between, calibrated=after
    )


def _fit_residual(
    kind: ResidualKind, corrected: Array, labels: Array, weights: Array, min_clicks: int
) -> tuple[Residual, str]:
    """The residual, and why it is another than the one asked for ("" where it is that one)."""
    if kind not in _FITTERS:
        return IdentityCalibrator(), ""
    try:
        few = _too_few(labels, weights, min_clicks)
        if few:
            reason = f"{few}: {kind} was not fitted, but Platt with a prior at the identity"
            return fit_platt_with_prior(corrected, labels, weights), reason
        return _FITTERS[kind](corrected, labels, weights), ""
    except CannotFitError as error:
        return IdentityCalibrator(), f"{kind} was not fitted: {error}"


def _metrics(
    labels: Array, z: Array, weights: Array, clusters: ArrayLike | None
) -> dict[str, float]:
    ratio = calibration_interval(labels, z, weights, clusters)
    return {
        "log_loss": metrics.log_loss(labels, logits=z, weight=weights),
        "normalized_entropy": metrics.normalized_entropy(labels, logits=z, weight=weights),
        "calibration_ratio": ratio.estimate,
        "calibration_ratio_low": ratio.low,
        "calibration_ratio_high": ratio.high,
        "expected_calibration_error": metrics.expected_calibration_error(
            labels, logits=z, weight=weights
        ),
    }


def _too_few(labels: Array, weights: Array, least: int) -> str:
    """Which class has fewer rows than `least`; empty when none has.

    Raises:
        CannotFitError: a class has none at all.
    """
    complaint = ""
    for name, rows in (("clicks", labels == 1), ("rows without a click", labels == 0)):
        count = int((rows & (weights > 0)).sum())
        if not count:
            raise CannotFitError(f"0 {name}, fewer than {max(1, least)}")
        if count < least and not complaint:
            complaint = f"{count} {name}, fewer than {least}"
    return complaint
