"""Confidence intervals: DeLong for the AUC, the Poisson bootstrap for sums over rows.

DeLong et al. 1988, in O(n log n) after Sun & Xu 2014 (Fast implementation of DeLong's algorithm).
The Poisson bootstrap (Chamandy et al. 2012) gives every row an independent Poisson(1) count in
every replicate; the metrics here are functions of a few sums, so replicates are a matrix product.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, xlog1py, xlogy

from models.metrics.checked_arrays import Array, checked_rows, cluster_codes, loss_terms
from pipeline.errors import ConfigError

__all__ = [
    "Interval",
    "auc_difference_interval",
    "auc_interval",
    "bootstrap_intervals",
    "check_bootstrap",
    "check_level",
    "percentile_interval",
    "placements",
    "poisson_table",
]

CHUNK_ROWS = 8_192  # rows whose counts of all replicates are held at once


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; NaN where it is not defined.

    Attributes:
        estimate: the metric on the rows as they are.
        low: lower end.
        high: upper end.
        standard_error: of the estimate.
        level: confidence, 0.95 unless asked otherwise.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    level: float = 0.95


def check_level(level: float) -> None:
    """Raises ConfigError unless level is a share strictly between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise ConfigError("level must lie strictly between 0 and 1", level, "Try 0.95.")


def placements(labels: Array, scores: Array, weights: Array) -> Array:
    """[rows]: the share of the other class (by weight) that each row is on the right side of."""
    _, group = np.unique(scores, return_inverse=True)
    click = np.bincount(group, weights=weights * labels)
    other = np.bincount(group, weights=weights * (1.0 - labels))
    other_below = (np.cumsum(other) - 0.5 * other) / other.sum()
    click_above = 1.0 - (np.cumsum(click) - 0.5 * click) / click.sum()
    return np.where(labels == 1.0, other_below[group], click_above[group])


def _delong(labels: Array, weights: Array, placements: Array, level: float) -> Interval:
    """Interval of the weighted mean placement of clicks and of non-clicks (they are equal)."""
    variance, estimate = 0.0, math.nan
    for is_click in (1.0, 0.0):
        rows = (labels == is_click) & (weights > 0)
        count, w, v = int(rows.sum()), weights[rows], placements[rows]
        share = w / w.sum()
        mean = float(np.dot(share, v))
        if is_click:
            estimate = mean
        # With equal weights this is the sample variance of the placements over their number.
        spread = float(np.dot(share**2, (v - mean) ** 2))
        variance += spread * count / (count - 1) if count > 1 else math.nan
    error = math.sqrt(variance)
    half = float(ndtri(0.5 + level / 2)) * error
    return Interval(estimate, estimate - half, estimate + half, error, level)


def _both_classes(labels: Array, weights: Array) -> bool:
    return bool((weights[labels == 1] > 0).any() and (weights[labels == 0] > 0).any())


def auc_interval(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, level: float = 0.95
) -> Interval:
    """DeLong's interval of the AUC, cut off at 0 and 1.

    Weighted rows count as draws of their own with unequal shares, not as repeated rows. A class
    without a row gives NaN, with a single row an estimate with NaN ends.

    Raises:
        DataError: impossible label, score or weight.
        ConfigError: level is not in (0, 1).
    """
    check_level(level)
    labels, scores, weights = checked_rows(label, score, weight)
    if not _both_classes(labels, weights):
        return Interval(math.nan, math.nan, math.nan, math.nan, level)
    whole = _delong(labels, weights, placements(labels, scores, weights), level)
    if math.isnan(whole.standard_error):
        return whole
    return dataclasses.replace(whole, low=max(0.0, whole.low), high=min(1.0, whole.high))


def auc_difference_interval(
    label: ArrayLike,
    score: ArrayLike,
    other_score: ArrayLike,
    weight: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """DeLong's interval of AUC(score) - AUC(other_score) on the same rows (paired).

    Raises:
        DataError: impossible label, score or weight.
        ConfigError: level is not in (0, 1).
    """
    check_level(level)
    labels, scores, weights = checked_rows(label, score, weight)
    _, others, _ = checked_rows(label, other_score, weight)
    if not _both_classes(labels, weights):
        return Interval(math.nan, math.nan, math.nan, math.nan, level)
    difference = placements(labels, scores, weights) - placements(labels, others, weights)
    return _delong(labels, weights, difference, level)


# Each metric as a function of sums over rows: [.., (weight, clicks, predicted, loss)].
def _log_loss(sums: Array) -> Array:
    return sums[..., 3] / sums[..., 0]


def _calibration_ratio(sums: Array) -> Array:
    return sums[..., 2] / sums[..., 1]


def _normalized_entropy(sums: Array) -> Array:
    rate = sums[..., 1] / sums[..., 0]
    return _log_loss(sums) / -(xlogy(rate, rate) + xlog1py(1.0 - rate, -rate))


_FROM_SUMS: dict[str, Callable[[Array], Array]] = {
    "log_loss": _log_loss,
    "calibration_ratio": _calibration_ratio,
    "normalized_entropy": _normalized_entropy,
}


def bootstrap_intervals(
    label: ArrayLike,
    logits: ArrayLike,
    weight: ArrayLike | None = None,
    other_logits: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    *,
    num_replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Percentile intervals of log_loss, calibration_ratio and normalized_entropy.

    With `other_logits`, of their paired differences (logits minus other_logits): both models see
    the same replicate. With `clusters` [rows], rows of one value (a user, an hour) are drawn together.
    The same seed gives the same interval. Replicates in which the metric is not defined (no click
    drawn) are left out of its percentiles.

    Raises:
        DataError: impossible label, logit or weight, clusters of another shape.
        ConfigError: level is not in (0, 1) or there are fewer than 2 replicates.
    """
    check_bootstrap(num_replicates, level)
    models = [_row_terms(label, logits, weight)]
    if other_logits is not None:
        models.append(_row_terms(label, other_logits, weight))
    terms = np.concatenate(models, axis=1)  # [rows, models * 4]
    if clusters is not None:
        codes = cluster_codes(clusters, len(terms))
        terms = np.stack([np.bincount(codes, term) for term in terms.T], axis=1)  # [clusters, ...]
    rng = np.random.default_rng(seed)
    poisson = poisson_table()
    sums = np.zeros((num_replicates, terms.shape[1]))
    for start in range(0, len(terms), CHUNK_ROWS):
        chunk = terms[start : start + CHUNK_ROWS]
        draws = rng.integers(0, 2**16, (num_replicates, len(chunk)), dtype=np.uint16)
        sums += poisson[draws].astype(np.float64) @ chunk
    replicates = sums.reshape(num_replicates, len(models), 4)
    observed = terms.sum(axis=0).reshape(len(models), 4)

    result = {}
    for name, metric in _FROM_SUMS.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn, estimate = metric(replicates), metric(observed)
        if other_logits is not None:
            with np.errstate(invalid="ignore"):
                drawn, estimate = drawn[:, :1] - drawn[:, 1:], estimate[:1] - estimate[1:]
        result[name] = percentile_interval(float(estimate[0]), drawn[:, 0], level)
    return result


def check_bootstrap(num_replicates: int, level: float) -> None:
    """Refuses what no percentile interval can be made of.

    Raises:
        ConfigError: level is not in (0, 1) or there are fewer than 2 replicates.
    """
    check_level(level)
    if num_replicates < 2:
        raise ConfigError("num_replicates must be at least 2", num_replicates, "Try 200.")


def percentile_interval(estimate: float, drawn: Array, level: float) -> Interval:
    """The interval of a metric from its values in the replicates; those not finite are left out.

    Args:
        estimate: of the rows as they are.
        drawn: [replicates].
        level: of confidence.
    """
    finite = drawn[np.isfinite(drawn)]
    low, high, error = math.nan, math.nan, math.nan
    if len(finite) > 1 and np.isfinite(estimate):
        low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
        error = finite.std(ddof=1)
    value = estimate if np.isfinite(estimate) else math.nan
    return Interval(value, float(low), float(high), float(error), level)


@functools.cache
def poisson_table() -> NDArray[np.uint8]:
    """Counts of Poisson(1) at 2**16 equal steps of probability.

    Counts above 8 (1 row in a million) are left out: the mean is exactly 1, the variance 0.99997.
    The whole bootstrap took a quarter of the time that it took with drawn Poisson numbers.
    """
    cumulative = np.cumsum([math.exp(-1.0) / math.factorial(k) for k in range(20)])
    steps = (np.arange(2**16) + 0.5) / 2**16
    return np.searchsorted(cumulative, steps).astype(np.uint8)


def _row_terms(label: ArrayLike, logits: ArrayLike, weight: ArrayLike | None) -> Array:
    labels, p, loss, w = loss_terms(label, logits, None, weight)
    return np.stack([w, w * labels, w * p, w * loss], axis=1)
