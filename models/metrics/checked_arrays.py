"""The rows that a metric is computed on: checked once, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, xlog1py, xlogy

from pipeline.errors import DataError

__all__ = ["Array", "checked_label", "checked_rows", "cluster_codes", "dot", "loss_terms", "ratio"]

Array = NDArray[np.float64]


def _column(values: ArrayLike, name: str, rows: int | None) -> Array:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or (rows is not None and len(column) != rows):
        expected = "[rows]" if rows is None else f"[{rows}]"
        raise DataError(
            f"{name} must have the shape {expected} of the labels",
            list(column.shape),
            "Give one number per row.",
        )
    return column


def checked_label(label: ArrayLike, binary: bool) -> Array:
    """The labels as float64 [rows]: 0 or 1, or anything between when `binary` is False.

    Raises:
        DataError: another value, or not one axis.
    """
    column = _column(label, "label", None)
    bad = (column != 0) & (column != 1) if binary else ~((column >= 0) & (column <= 1))
    if bad.any():
        raise DataError(
            "labels must be 0 or 1" if binary else "labels must lie between 0 and 1",
            column[bad][0],
            "Check the label column.",
        )
    return column


def checked_rows(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, *, binary: bool = True
) -> tuple[Array, Array, Array]:
    """Label, score and weight as float64 [rows]; a missing weight is 1.

    Raises:
        DataError: shapes differ, a label is impossible, a score is NaN, a weight is negative.
    """
    labels = checked_label(label, binary)
    scores = _column(score, "score", len(labels))
    if np.isnan(scores).any():
        raise DataError(
            "scores must not be NaN",
            f"{int(np.isnan(scores).sum())} NaN of {len(scores)}",
            "Check the training for divergence.",
        )
    if weight is None:
        return labels, scores, np.ones(len(labels))
    weights = _column(weight, "weight", len(labels))
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        raise DataError(
            "weights must be finite and not negative", weights[bad][0], "Check the weight column."
        )
    return labels, scores, weights


def cluster_codes(clusters: ArrayLike, rows: int) -> NDArray[np.int64]:
    """Numbers 0, 1, ... in place of values of any kind that name a row's cluster, [rows].

    Raises:
        DataError: another shape.
    """
    values = np.asarray(clusters)
    if values.shape != (rows,):
        raise DataError(
            f"clusters must have the shape [{rows}] of the labels",
            list(values.shape),
            "Give one value per row.",
        )
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def loss_terms(
    label: ArrayLike,
    logits: ArrayLike | None,
    probability: ArrayLike | None,
    weight: ArrayLike | None,
) -> tuple[Array, Array, Array, Array]:
    """Label, probability, log loss of each row (nats) and weight, each [rows].

    From logits the loss is softplus(logit) - label * logit, which neither overflows nor rounds to
    zero where the sigmoid does. A probability of exactly 0 or 1 that is wrong costs infinity.

    Raises:
        DataError: as `checked_rows`; not exactly one of logits and probability; a probability
            outside [0, 1].
    """
    if (logits is None) == (probability is None):
        raise DataError(
            "exactly one of logits and probability must be given",
            "both" if logits is not None else "none",
            "Prefer logits: they lose no precision.",
        )
    if logits is not None:
        labels, z, weights = checked_rows(label, logits, weight, binary=False)
        # Each side by itself: softplus(z) - label * z is inf - inf at an infinite logit.
        with np.errstate(invalid="ignore"):
            click, no_click = np.logaddexp(0.0, -z), np.logaddexp(0.0, z)
        loss = _blend(labels, click, no_click)
        return labels, expit(z), loss, weights
    labels, p, weights = checked_rows(label, probability, weight, binary=False)  # type: ignore[arg-type]
    outside = (p < 0) | (p > 1)
    if outside.any():
        raise DataError(
            "probabilities must lie between 0 and 1", p[outside][0], "Pass logits as logits=."
        )
    return labels, p, -(xlogy(labels, p) + xlog1py(1.0 - labels, -p)), weights


def _blend(labels: Array, click: Array, no_click: Array) -> Array:
    """The mean of both losses by label, in which 0 times infinity is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(labels > 0, labels * click, 0.0) + np.where(
            labels < 1, (1.0 - labels) * no_click, 0.0
        )


def dot(weight: Array, loss: Array) -> float:
    """Sum of weight * loss, in which a row without weight costs nothing even at infinite loss."""
    return float(np.dot(weight, np.where(weight > 0, loss, 0.0)))


def ratio(numerator: float, denominator: float) -> float:
    """The quotient, or NaN where the denominator is zero: a metric that is not defined."""
    return float(numerator / denominator) if denominator else float("nan")
