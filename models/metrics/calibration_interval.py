"""The calibration ratio with its interval, and what it says: calibrated, off, or too few clicks to tell."""

from __future__ import annotations

import enum
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from models.metrics.checked_arrays import checked_rows, loss_terms
from models.metrics.intervals import Interval
from pipeline.errors import ConfigError, DataError

__all__ = ["BAND", "CalibrationVerdict", "calibration_interval", "calibration_verdict"]

BAND = (0.8, 1.25)  # a ratio in it is good enough for a default


class CalibrationVerdict(enum.StrEnum):
    """What an interval of the calibration ratio says about a band."""

    WITHIN = "within the band"
    DRIFT = "drift"  # off, and the base rate has moved between fitting and these rows
    OFF = "miscalibrated"
    TOO_FEW = "too few clicks to tell"


def calibration_interval(
    label: ArrayLike,
    logits: ArrayLike,
    weight: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
) -> Interval:
    """Mean prediction over mean label, with the interval of a ratio of sums over clusters.

    The delta method on the logarithm: with p and y a cluster's weighted sums of predictions and labels,
    ratio r = sum p / sum y and n clusters,

        var(ln r) = n / (n - 1) sum (p / sum p - y / sum y)^2,

    and Student's t with n - 1 degrees of freedom. Rows of an hour or a day rise and fall together, so that
    an interval over single rows would be too narrow; each row is a cluster where none are given.

    Args:
        label: 0 or 1, [rows].
        logits: [rows].
        weight: not negative, [rows]; 1 when None.
        clusters: any values, equal for rows of one cluster, [rows].
        level: of confidence.

    Returns:
        NaN without clicks; an estimate with NaN ends of a single cluster. `standard_error` is that of ln r.

    Raises:
        DataError: impossible label, logit, weight, or clusters of another shape.
        ConfigError: level is not in (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ConfigError("level must lie strictly between 0 and 1", level, "Try 0.95.")
    checked_rows(label, logits, weight)
    labels, p, _, weights = loss_terms(label, logits, None, weight)
    predicted, clicks = weights * p, weights * labels
    if clusters is not None:
        if np.shape(clusters) != labels.shape:
            raise DataError(
                f"clusters must have the shape [{len(labels)}] of the labels",
                list(np.shape(clusters)),
                "Give one cluster per row.",
            )
        code = np.unique(np.asarray(clusters), return_inverse=True)[1]
        predicted, clicks = (
            np.bincount(code, weights=v).astype(np.float64) for v in (predicted, clicks)
        )
    sums = float(predicted.sum()), float(clicks.sum())
    if not sums[1] or not sums[0]:
        return Interval(math.nan, math.nan, math.nan, math.nan, level)
    estimate, count = sums[0] / sums[1], len(clicks)
    if count < 2:
        return Interval(estimate, math.nan, math.nan, math.nan, level)
    parts = predicted / sums[0] - clicks / sums[1]
    error = math.sqrt(count / (count - 1) * float(np.dot(parts, parts)))
    factor = math.exp(float(student.ppf(0.5 + level / 2, count - 1)) * error)
    return Interval(estimate, estimate / factor, estimate * factor, error, level)


def calibration_verdict(
    ratio: Interval,
    band: tuple[float, float] = BAND,
    *,
    fitted: Interval | None = None,
    base_rates: tuple[float, float] | None = None,
) -> CalibrationVerdict:
    """What to say of a calibration ratio.

    It is off where its whole interval lies outside the band. That is drift where the same model fitted the
    rows that its residual was fitted on and the base rate has moved by more than the band since: the
    remedy is newer rows, not another model.

    Args:
        ratio: on the rows that are judged.
        band: lowest and highest ratio that is good enough.
        fitted: on the rows that the residual was fitted on (validation).
        base_rates: mean label of those rows, and of the rows that are judged.

    Raises:
        ConfigError: the band does not hold 1.
    """
    low, high = band
    if not 0.0 < low < 1.0 < high:
        raise ConfigError("a calibration band lies around 1", list(band), "Try [0.8, 1.25].")
    if math.isnan(ratio.low) or math.isnan(ratio.high):
        return CalibrationVerdict.TOO_FEW
    if low <= ratio.estimate <= high:
        return CalibrationVerdict.WITHIN
    if ratio.low <= high and ratio.high >= low:
        return CalibrationVerdict.TOO_FEW
    was_right = fitted is not None and low <= fitted.estimate <= high
    has_moved = base_rates is not None and min(base_rates) > 0
    if was_right and has_moved and base_rates is not None:
        moved = base_rates[0] / base_rates[1]
        if not low <= moved <= high and (moved > 1) == (ratio.estimate > 1):
            return CalibrationVerdict.DRIFT
    return CalibrationVerdict.OFF
