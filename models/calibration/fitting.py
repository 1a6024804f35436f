"""Fits a residual calibrator on rows held out from training, and says what it changed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from models import metrics
from models.calibration.correction import LossCorrection
from models.calibration.residual import (
    Calibration,
    IdentityCalibrator,
    IsotonicCalibrator,
    PlattCalibrator,
    Residual,
)
from models.metrics.checked_arrays import checked_rows
from pipeline.errors import ConfigError, DataError

__all__ = ["CalibrationReport", "fit_calibration", "fit_isotonic", "fit_platt"]

Array = NDArray[np.float64]
ResidualKind = Literal["platt", "isotonic", "identity"]

MAX_STEPS = 100
MAX_KNOTS = 50
CLICKS_PER_KNOT = 50  # a knot's log odds are then known to about 0.14


class _CannotFitError(Exception):
    """The rows do not determine a calibrator; the message is the report's reason."""


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
) -> tuple[Calibration, CalibrationReport]:
    """The calibration of a trained model, fitted on held-out rows.

    The rows must be a sample of what will be served: not down-sampled, or weighted by 1 / rate.
    Where they do not determine a calibrator the residual is the identity, and the report says why.

    Args:
        raw_logits: what the model answers in inference mode, [rows].
        label: 0 or 1, [rows].
        weight: not negative, [rows]; 1 when None.
        correction: of the loss and the sampling that the model was trained with.
        residual: "platt", "isotonic" or "identity" (none).
        min_clicks: rows of each class below which nothing is fitted; with n clicks the mean
            prediction is known to about 1 / sqrt(n).

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
    correction = correction or LossCorrection()
    corrected = correction.correct(tf.constant(raw, tf.float64)).numpy()
    fitters = {"platt": fit_platt, "isotonic": fit_isotonic}
    fitted: Residual = IdentityCalibrator()
    reason = ""
    if residual in fitters:
        try:
            _require_both_classes(labels, weights, min_clicks)
            fitted = fitters[residual](corrected, labels, weights)
        except _CannotFitError as error:
            reason = f"{residual} was not fitted: {error}"
    elif residual != "identity":
        raise ConfigError(
            "residual must be a known kind", residual, "Allowed: platt, isotonic, identity."
        )
    calibration = Calibration(correction, fitted)
    calibrated = fitted.correct(tf.constant(corrected, tf.float64)).numpy()
    before, between, after = (_metrics(labels, z, weights) for z in (raw, corrected, calibrated))
    report = CalibrationReport(
        kind=fitted.kind,
        reason=reason,
        count=len(labels),
        clicks=float(np.dot(labels, weights)),
        raw=before,
        corrected=between,
        calibrated=after,
    )
    return calibration, report


def _metrics(labels: Array, z: Array, weights: Array) -> dict[str, float]:
    return {
        "log_loss": metrics.log_loss(labels, logits=z, weight=weights),
        "normalized_entropy": metrics.normalized_entropy(labels, logits=z, weight=weights),
        "calibration_ratio": metrics.calibration_ratio(labels, logits=z, weight=weights),
        "expected_calibration_error": metrics.expected_calibration_error(
            labels, logits=z, weight=weights
        ),
    }


def _require_both_classes(labels: Array, weights: Array, least: int) -> None:
    for name, rows in (("clicks", labels == 1), ("rows without a click", labels == 0)):
        count = int((rows & (weights > 0)).sum())
        if count < max(1, least):
            raise _CannotFitError(f"{count} {name}, fewer than {max(1, least)}")


def fit_platt(z: Array, labels: Array, weights: Array) -> PlattCalibrator:
    """The slope and intercept of least weighted log loss, by Newton's method.

    Args:
        z: log odds, [rows], finite.
        labels: 0 or 1, [rows], both present with weight.
        weights: [rows].

    Raises:
        _CannotFitError: the slope would not be positive, or there is no minimum.
    """
    used = weights > 0
    z, labels, weights = z[used], labels[used], weights[used] / weights[used].sum()
    centre = float(np.dot(weights, z))
    spread = math.sqrt(float(np.dot(weights, (z - centre) ** 2)))
    if spread <= 1e-9 * max(1.0, abs(centre)):
        # One logit for all rows: only the intercept is determined.
        return PlattCalibrator(1.0, float(logit(np.dot(weights, labels))) - centre)
    if z[labels == 1].min() >= z[labels == 0].max():
        raise _CannotFitError("the logits separate the classes, so that any slope can be bettered")
    x = (z - centre) / spread
    theta = np.array([spread, centre])  # starts at the identity

    def loss(theta: Array) -> float:
        t = theta[0] * x + theta[1]
        return float(np.dot(weights, np.logaddexp(0.0, t) - labels * t))

    current = loss(theta)
    for _ in range(MAX_STEPS):
        p = expit(theta[0] * x + theta[1])
        error, curvature = weights * (p - labels), weights * p * (1.0 - p)
        gradient = np.array([np.dot(error, x), error.sum()])
        cross = float(np.dot(curvature, x))
        hessian = np.array([[np.dot(curvature, x * x), cross], [cross, curvature.sum()]])
        # The ridge matters only where all rows are saturated and the curvature is zero.
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        decrement = float(gradient @ step)
        if decrement < 1e-14:
            theta = theta - step
            break
        scale = 1.0
        while scale > 1e-8 and loss(theta - scale * step) > current - 1e-4 * scale * decrement:
            scale /= 2
        theta = theta - scale * step
        current = loss(theta)
    else:
        raise _CannotFitError(f"no minimum was found in {MAX_STEPS} steps")
    slope = float(theta[0]) / spread
    if slope <= 0.0:
        raise _CannotFitError(f"the slope would be {slope:.3g}: clicks have the lower logits")
    return PlattCalibrator(slope, float(theta[1]) - slope * centre)


def fit_isotonic(z: Array, labels: Array, weights: Array) -> IsotonicCalibrator:
    """Knots at bins of equal click weight, pooled until their click rates rise, then shifted.

    A knot lies at the log odds of its bin's mean prediction, so a calibrated model is left as it
    is; the final shift makes the mean prediction on the rows equal to their mean label.

    Args:
        z: log odds, [rows], finite.
        labels: 0 or 1, [rows], both present with weight.
        weights: [rows].

    Raises:
        _CannotFitError: all predictions are 0 or 1.
    """
    used = weights > 0
    z, labels, weights = z[used], labels[used], weights[used]
    order = np.argsort(z, kind="stable")
    z, labels, weights = z[order], labels[order], weights[order]
    num_bins = int(np.clip(labels.sum() // CLICKS_PER_KNOT, 1, MAX_KNOTS))
    clicks = weights * labels
    share = (np.cumsum(clicks) - 0.5 * clicks) / clicks.sum()
    bin_of = np.minimum((share * num_bins).astype(np.int64), num_bins - 1)
    # Tied logits share the bin of the first of them.
    bin_of = bin_of[np.searchsorted(z, z, side="left")]
    sums = np.stack(
        [np.bincount(bin_of, weights=v) for v in (weights, clicks, weights * expit(z))], axis=1
    )
    sums = sums[sums[:, 0] > 0]
    # Half a click and half a non-click, of mean weight: a bin of clicks only has finite log odds.
    unit = float(weights.mean())
    pooled: list[Array] = []
    for row in sums:
        pooled.append(row)
        while len(pooled) > 1 and _rate(pooled[-2], unit) >= _rate(pooled[-1], unit):
            last = pooled.pop()
            pooled[-1] = pooled[-1] + last
    inputs = np.array([logit(row[2] / row[0]) for row in pooled])
    outputs = np.array([logit(_rate(row, unit)) for row in pooled])
    if not np.isfinite(inputs).all() or (np.diff(inputs) <= 0).any():
        raise _CannotFitError("the predictions are saturated at 0 or 1")
    curve = IsotonicCalibrator(inputs, outputs).correct(tf.constant(z, tf.float64)).numpy()
    return IsotonicCalibrator(inputs, outputs + _shift_to_mean(curve, labels, weights))


def _rate(row: Array, unit: float) -> float:
    return float((row[1] + 0.5 * unit) / (row[0] + unit))


def _shift_to_mean(z: Array, labels: Array, weights: Array) -> float:
    """The number that, added to all log odds, makes the mean prediction the mean label."""
    goal = float(np.dot(weights, labels))
    low, high = -50.0, 50.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (
            (middle, high) if float(np.dot(weights, expit(z + middle))) < goal else (low, middle)
        )
    return (low + high) / 2
