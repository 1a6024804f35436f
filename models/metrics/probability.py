"""Metrics of the probabilities themselves: log loss and how well it is calibrated.

All take `label` [rows] in [0, 1] (a true probability may stand for a label where it is known), one
of `logits` and `probability` [rows], and an optional `weight` [rows]. A metric that is not defined
on the rows (no rows, a class absent) is NaN. All raise DataError on impossible input.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from models.metrics.checked_arrays import Array, dot, loss_terms, ratio
from models.metrics.ranking import average_precision
from pipeline.errors import ConfigError

__all__ = [
    "calibration_ratio",
    "entropy",
    "expected_calibration_error",
    "log_loss",
    "normalized_entropy",
    "reliability_bins",
    "toss_from",
    "toss_metric",
    "weighted_log_loss",
]


def log_loss(
    label: ArrayLike,
    *,
    logits: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> float:
    """Weighted mean of the negative log likelihood, nats."""
    _, _, loss, w = loss_terms(label, logits, probability, weight)
    return ratio(dot(w, loss), float(w.sum()))


def entropy(mean_label: float) -> float:
    """Log loss of always predicting the mean label, nats."""
    if not 0.0 < mean_label < 1.0:
        return 0.0 if mean_label in (0.0, 1.0) else math.nan
    return -(mean_label * math.log(mean_label) + (1 - mean_label) * math.log1p(-mean_label))


def normalized_entropy(
    label: ArrayLike,
    *,
    logits: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> float:
    """Log loss over the entropy of the mean label; 1 is the mean itself (He et al. 2014)."""
    labels, _, loss, w = loss_terms(label, logits, probability, weight)
    mean_label = ratio(float(np.dot(w, labels)), float(w.sum()))
    return ratio(ratio(dot(w, loss), float(w.sum())), entropy(mean_label))


def calibration_ratio(
    label: ArrayLike,
    *,
    logits: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> float:
    """Mean predicted probability over mean label; NaN when there is no click."""
    labels, p, _, w = loss_terms(label, logits, probability, weight)
    return ratio(float(np.dot(w, p)), float(np.dot(w, labels)))


def weighted_log_loss(
    label: ArrayLike,
    *,
    logits: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> float:
    """Log loss in which clicks and non-clicks count half each, whatever their number; nats."""
    labels, _, loss, w = loss_terms(label, logits, probability, weight)
    click, other = w * labels, w * (1.0 - labels)
    return 0.5 * ratio(dot(click, loss), float(click.sum())) + 0.5 * ratio(
        dot(other, loss), float(other.sum())
    )


def toss_from(average_precision_value: float, weighted_log_loss_value: float) -> float:
    """0.5 AP + 0.5 / (1 + WLL)."""
    return 0.5 * average_precision_value + 0.5 / (1.0 + weighted_log_loss_value)


def toss_metric(
    label: ArrayLike,
    *,
    logits: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> float:
    """The metric of the Toss NEXT ML challenge (2025): 0.5 AP + 0.5 / (1 + WLL)."""
    wll = weighted_log_loss(label, logits=logits, probability=probability, weight=weight)
    (score,) = (each for each in (logits, probability) if each is not None)
    return toss_from(average_precision(label, score, weight), wll)


def reliability_bins(
    label: ArrayLike,
    *,
    logits: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    num_bins: int = 20,
) -> dict[str, Array]:
    """Bins of equal weight along the predicted probability; equal predictions share a bin.

    Returns:
        probability, label (weighted means) and weight, each [bins that hold any], rising.

    Raises:
        ConfigError: num_bins is not positive.
    """
    if num_bins < 1:
        raise ConfigError("num_bins must be positive", num_bins, "Try 20.")
    labels, p, _, w = loss_terms(label, logits, probability, weight)
    distinct, group = np.unique(p, return_inverse=True)
    mass = np.bincount(group, weights=w, minlength=len(distinct))
    total = float(mass.sum())
    if total == 0.0:
        return {name: np.zeros(0) for name in ("probability", "label", "weight")}
    # The bin of a group's middle does not depend on the order of its rows.
    middle = (np.cumsum(mass) - 0.5 * mass) / total
    bin_of = np.minimum((middle * num_bins).astype(np.int64), num_bins - 1)[group]
    weights = np.bincount(bin_of, weights=w, minlength=num_bins).astype(np.float64)
    filled = weights > 0
    sums = [np.bincount(bin_of, weights=w * x, minlength=num_bins)[filled] for x in (p, labels)]
    weights = weights[filled]
    return {"probability": sums[0] / weights, "label": sums[1] / weights, "weight": weights}


def expected_calibration_error(
    label: ArrayLike,
    *,
    logits: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    num_bins: int = 20,
) -> float:
    """Weighted mean over equal-mass bins of |mean predicted - mean label| (Nguyen & O'Connor 2015).

    Raises:
        ConfigError: num_bins is not positive.
    """
    bins = reliability_bins(
        label, logits=logits, probability=probability, weight=weight, num_bins=num_bins
    )
    gap = np.abs(bins["probability"] - bins["label"])
    return ratio(float(np.dot(bins["weight"], gap)), float(bins["weight"].sum()))
