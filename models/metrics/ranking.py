"""Exact ranking metrics: ties and sample weights are taken as they are, nothing is binned."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from models.metrics.checked_arrays import Array, checked_rows, ratio

__all__ = ["auc", "auc_from_groups", "average_precision", "precision_from_groups"]


def _groups(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None) -> tuple[Array, Array]:
    """Weight of clicks and of non-clicks at each distinct score, rising."""
    labels, scores, weights = checked_rows(label, score, weight)
    order = np.argsort(scores, kind="stable")
    scores = scores[order]
    clicks = weights[order] * labels[order]
    others = weights[order] * (1.0 - labels[order])
    if len(scores) == 0:
        return clicks, others
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
    return np.add.reduceat(clicks, starts), np.add.reduceat(others, starts)


def auc_from_groups(clicks: Array, others: Array) -> float:
    """Area under the ROC curve from weights per group of tied scores, groups rising."""
    below = np.cumsum(others) - others
    won = float(np.dot(clicks, below + 0.5 * others))
    return ratio(won, float(clicks.sum()) * float(others.sum()))


def precision_from_groups(clicks: Array, others: Array) -> float:
    """Average precision from weights per group of tied scores, groups rising."""
    clicks, others = clicks[::-1], others[::-1]
    found, shown = np.cumsum(clicks), np.cumsum(clicks + others)
    precision = np.divide(found, shown, out=np.zeros_like(found), where=shown > 0)
    return ratio(float(np.dot(clicks, precision)), float(clicks.sum()))


def auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Probability that a click outranks a non-click, ties counting half (Mann-Whitney).

    Args:
        label: 0 or 1, [rows].
        score: anything that rises with the probability, [rows].
        weight: not negative, [rows]; 1 when None.

    Returns:
        The area in [0, 1]; NaN when a class has no weight.

    Raises:
        DataError: shapes differ, or a label, score or weight is impossible.
    """
    return auc_from_groups(*_groups(label, score, weight))


def average_precision(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Sum over thresholds of precision times the recall gained, without interpolation.

    The definition of scikit-learn's `average_precision_score`. Arguments and errors as `auc`; NaN
    when there is no click.
    """
    return precision_from_groups(*_groups(label, score, weight))
