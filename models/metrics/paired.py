"""The difference between two models on the same rows, over several trainings, with its whole error.

Every metric here is linearised: a row's influence is what that row adds to the metric's error, and the
errors of a sum over rows follow from the sums of influences over clusters. For a mean that is the
bootstrap over clusters in its limit of endless replicates (the infinitesimal jackknife, Efron 1982),
for the AUC it is DeLong's variance, clustered as by Obuchowski 1997; neither needs drawing.

Two things are random: the rows of the test split, which all trainings share, and the trainings. With
differences d(s, c) = mu + row(c) + training(s) + both(s, c), the mean over S trainings has the variance

    rows / G + trainings / S + both / (G S)

The spread of clusters (of the mean over trainings) measures the first and the last term, the spread of
trainings the second and the last; the last, measured by itself, is taken out once (two-way analysis of
variance). Without that the trainings of one and the same config, which differ on every row, would get
an interval that is too wide; with the rows alone, or the trainings alone, one that is too narrow.
Student's t has the degrees of freedom of Satterthwaite 1946; those of the rows follow from the fourth
moment of the clusters' sums, so that few clicks or one large cluster count as few.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from models.metrics.checked_arrays import Array, checked_rows, cluster_codes, loss_terms
from models.metrics.intervals import Interval, check_level, placements
from pipeline.errors import ConfigError

__all__ = ["PAIRED_METRICS", "PairedDifference", "SeedDeviation", "paired_difference"]


@dataclasses.dataclass(frozen=True)
class SeedDeviation:
    """What other trainings say about the noise of a difference between two trainings.

    Attributes:
        deviation: standard deviation, over seeds, of the difference of the metric.
        degrees_of_freedom: that stand behind it.
    """

    deviation: float
    degrees_of_freedom: float


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """metric(ours) - metric(other), with its error; NaN where it is not defined.

    Attributes:
        metric: its name.
        estimate: mean over the trainings.
        standard_error: of the estimate.
        degrees_of_freedom: of the standard error.
        row_error: the part of it that more test rows would make smaller.
        seed_error: the part that more trainings would make smaller; NaN when one training is all
            there is and no `SeedDeviation` was given: then the interval does not hold that part.
        by_seed: the difference of each training.
        rows: that were scored.
        clusters: of rows; as many as rows where every row stands for itself.
    """

    metric: str
    estimate: float
    standard_error: float
    degrees_of_freedom: float
    row_error: float
    seed_error: float
    by_seed: tuple[float, ...]
    rows: int
    clusters: int

    def interval(self, level: float = 0.95) -> Interval:
        """Two-sided, by Student's t.

        Raises:
            ConfigError: level is not in (0, 1).
        """
        check_level(level)
        half = self._quantile(level) * self.standard_error
        low, high = self.estimate - half, self.estimate + half
        return Interval(self.estimate, low, high, self.standard_error, level)

    def detectable(self, level: float = 0.95, power: float = 0.8) -> float:
        """The true difference that such a comparison finds with this probability.

        2.8 standard errors at 95 % and a power of 80 %, more where few degrees of freedom stand behind.
        """
        check_level(level)
        quantiles = self._quantile(level) + self._quantile(2 * power - 1)
        return float(quantiles * self.standard_error)

    def p_value(self) -> float:
        """Two-sided, of no difference; 1 where both are the same, NaN where nothing is known."""
        if self.standard_error == 0.0:
            return 1.0 if self.estimate == 0.0 else 0.0
        if math.isnan(self.standard_error):
            return math.nan
        return float(2 * stdtr(self.degrees_of_freedom, -abs(self.estimate) / self.standard_error))

    def _quantile(self, level: float) -> float:
        return float(stdtrit(self.degrees_of_freedom, 0.5 + level / 2))


def paired_difference(
    metric: str,
    label: ArrayLike,
    ours: Sequence[ArrayLike],
    other: Sequence[ArrayLike],
    weight: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    *,
    seed_deviation: SeedDeviation | None = None,
) -> PairedDifference:
    """Compares trainings that differ in one thing, pair by pair, on the same rows.

    Args:
        metric: one of PAIRED_METRICS.
        label: 0 or 1, [rows].
        ours: logits [rows] of each training.
        other: as many trainings, each with the seed of its pair.
        weight: not negative, [rows]; 1 when None.
        clusters: rows that belong together (of one user, of one hour) have the same value, [rows]; None:
            every row stands for itself.
        seed_deviation: known from elsewhere, in place of what these few trainings say themselves.

    Raises:
        ConfigError: no such metric, no training, or not as many on both sides.
        DataError: impossible label, logit or weight, or clusters of another shape.
    """
    if metric not in PAIRED_METRICS:
        raise ConfigError(
            f"a paired metric is one of {', '.join(PAIRED_METRICS)}", repr(metric), "Choose one."
        )
    if not ours or len(ours) != len(other):
        raise ConfigError(
            "trainings are compared in pairs, at least one",
            f"{len(ours)} against {len(other)}",
            "Score both sides with the same seeds.",
        )
    influence_of = PAIRED_METRICS[metric]
    num_rows = np.shape(label)[0]
    codes = None if clusters is None else cluster_codes(clusters, num_rows)
    count = num_rows if codes is None else int(codes.max(initial=-1)) + 1
    differences, sums = np.zeros(len(ours)), np.zeros((len(ours), count))
    for seed, (one, another) in enumerate(zip(ours, other, strict=True)):
        value, influence = influence_of(label, one, weight)
        other_value, other_influence = influence_of(label, another, weight)
        differences[seed] = value - other_value
        change = influence - other_influence
        sums[seed] = change if codes is None else np.bincount(codes, change, minlength=count)
    return _two_way(metric, differences, sums, num_rows, seed_deviation)


def _two_way(
    metric: str,
    differences: Array,
    sums: Array,
    num_rows: int,
    known: SeedDeviation | None,
) -> PairedDifference:
    """From differences [seeds] and the clusters' sums of influences [seeds, clusters]."""
    seeds, count = sums.shape
    estimate = float(differences.mean())
    nothing = PairedDifference(
        metric,
        estimate,
        *(math.nan,) * 4,
        by_seed=tuple(differences.tolist()),
        rows=num_rows,
        clusters=count,
    )
    if count < 2 or not (np.isfinite(differences).all() and np.isfinite(sums).all()):
        return nothing
    small = count / (count - 1)
    mean = sums.mean(axis=0)
    squares = mean**2
    of_rows = small * float(squares.sum())
    row_freedom = _effective_freedom(squares)
    # What the trainings do to each row by itself is in both spreads: it counts once.
    of_both, both_freedom = 0.0, math.inf
    if seeds > 1:
        of_both = small * float(((sums - mean) ** 2).sum()) / (seeds - 1) / seeds
        both_freedom = (seeds - 1) * row_freedom
    if known is not None:
        of_seeds, seed_freedom = known.deviation**2 / seeds, known.degrees_of_freedom
    elif seeds > 1:
        of_seeds, seed_freedom = float(differences.var(ddof=1)) / seeds, seeds - 1.0
    else:
        of_seeds, seed_freedom = 0.0, math.inf
    beyond_rows = max(of_seeds - of_both, 0.0)
    variance = of_rows + beyond_rows
    parts = of_rows**2 / row_freedom
    if beyond_rows > 0.0:
        parts += of_seeds**2 / seed_freedom + of_both**2 / both_freedom
    return dataclasses.replace(
        nothing,
        standard_error=math.sqrt(variance),
        degrees_of_freedom=variance**2 / parts if parts > 0 else math.inf,
        row_error=math.sqrt(of_rows),
        seed_error=math.nan if seeds == 1 and known is None else math.sqrt(beyond_rows),
    )


def _effective_freedom(squares: Array) -> float:
    """Of a sum of squares [clusters]: their number if they are alike, fewer if a few make the sum."""
    total, count = float(squares.sum()), len(squares)
    spread = float((squares**2).sum()) - total**2 / count
    if total == 0.0 or spread <= 0.0:
        return count - 1.0
    return float(min(max(2 * total**2 / spread, 1.0), count - 1.0))


# --------------------------------------------------------------- metrics: (value, influence [rows])


def _log_loss(label: ArrayLike, logits: ArrayLike, weight: ArrayLike | None) -> tuple[float, Array]:
    _, _, loss, weights = loss_terms(label, logits, None, weight)
    return _mean(loss, weights)


def _normalized_entropy(
    label: ArrayLike, logits: ArrayLike, weight: ArrayLike | None
) -> tuple[float, Array]:
    """Log loss over the entropy of the click rate, which has an error of its own."""
    labels, _, loss, weights = loss_terms(label, logits, None, weight)
    mean, of_loss = _mean(loss, weights)
    rate, of_rate = _mean(labels, weights)
    if not 0.0 < rate < 1.0:
        return math.nan, np.full(len(labels), math.nan)
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))
    slope = math.log1p(-rate) - math.log(rate)
    return mean / entropy, of_loss / entropy - mean * slope / entropy**2 * of_rate


def _calibration_ratio(
    label: ArrayLike, logits: ArrayLike, weight: ArrayLike | None
) -> tuple[float, Array]:
    """Mean prediction over mean label."""
    labels, probability, _, weights = loss_terms(label, logits, None, weight)
    clicks = float(np.dot(weights, labels))
    if not clicks:
        return math.nan, np.full(len(labels), math.nan)
    ratio = float(np.dot(weights, probability)) / clicks
    return ratio, weights * (probability - ratio * labels) / clicks


def _auc(label: ArrayLike, logits: ArrayLike, weight: ArrayLike | None) -> tuple[float, Array]:
    """DeLong's placements about their mean; each class is a sample of its own."""
    labels, scores, weights = checked_rows(label, logits, weight)
    influence = np.full(len(labels), math.nan)
    classes = [(labels == side) & (weights > 0) for side in (1.0, 0.0)]
    if not all(rows.any() for rows in classes):
        return math.nan, influence
    placed = placements(labels, scores, weights)
    influence[:] = 0.0
    value = math.nan
    for rows in classes:
        share = weights[rows] / weights[rows].sum()
        value = float(np.dot(share, placed[rows]))
        number = len(share)
        small = math.sqrt(number / (number - 1)) if number > 1 else math.nan
        influence[rows] = small * share * (placed[rows] - value)
    return value, influence


def _mean(values: Array, weights: Array) -> tuple[float, Array]:
    total = float(weights.sum())
    if not total:
        return math.nan, np.full(len(values), math.nan)
    counted = np.where(weights > 0, values, 0.0)
    mean = float(np.dot(weights, counted)) / total
    with np.errstate(invalid="ignore"):
        return mean, weights * (counted - mean) / total


PAIRED_METRICS: dict[
    str, Callable[[ArrayLike, ArrayLike, ArrayLike | None], tuple[float, Array]]
] = {
    "log_loss": _log_loss,
    "auc": _auc,
    "normalized_entropy": _normalized_entropy,
    "calibration_ratio": _calibration_ratio,
}
