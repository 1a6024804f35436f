"""The paired comparison: which of two configs is better, by how much, and whether that can be said.

Same rows, paired seeds, an interval over test rows (in clusters of a user or an hour) and trainings
together (`models.metrics.paired` says how), the detectable effect beside it, and one of four answers. Many
comparisons of one report are corrected together (`compared_with`, Holm 1979).
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from experiments.scores import Scores, rows_of
from models.metrics import PairedDifference, SeedDeviation, paired_difference
from models.metrics.intervals import check_level
from pipeline.errors import ConfigError

__all__ = [
    "DIRECTIONS",
    "Answer",
    "Comparison",
    "compare",
    "compared_with",
    "difference_of",
    "holm",
    "judged",
    "pooled_deviation",
    "seeds_needed",
]

# +1: a higher value is better, -1: a lower one.
DIRECTIONS = {"log_loss": -1, "auc": 1, "normalized_entropy": -1}


class Answer(enum.StrEnum):
    """What a comparison says of ours against the other."""

    BETTER = "better"
    NO_WORSE = "no worse"  # than the margin
    WORSE = "worse"  # by more than the margin
    TOO_FEW = "too few rows to tell"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ours against another on the same rows.

    Attributes:
        ours, other: names.
        metric: "log_loss", "auc" or "normalized_entropy".
        difference: metric(ours) - metric(other), mean over the seeds; NaN where it is not defined.
        low, high: its interval, two-sided, at `level`.
        level: 0.95, or nearer to 1 where several comparisons were corrected together.
        answer: see `Answer`.
        margin: in units of the metric: how much worse still counts as no worse.
        detectable: the true difference that would be found, at this level, with a probability of 80 %.
        standard_error: of the difference; its square is that of the next two added.
        row_error: the part that more test rows would make smaller.
        seed_error: the part that more seeds would make smaller; NaN: one seed, and the interval holds
            the error of the test rows alone.
        p_value: of no difference at all.
        p_adjusted: the same after the correction.
        seeds, rows, clusters: how many.
        cluster: the key of the clusters; None: every row stands for itself.
        by_seed: the difference of each pair.
    """

    ours: str
    other: str
    metric: str
    difference: float
    low: float
    high: float
    level: float
    answer: Answer
    margin: float
    detectable: float
    standard_error: float
    row_error: float
    seed_error: float
    p_value: float
    p_adjusted: float
    seeds: int
    rows: int
    clusters: int
    cluster: str | None
    by_seed: tuple[float, ...]

    @property
    def seed_deviation(self) -> float:
        """Standard deviation of the difference over the seeds; NaN of a single one."""
        return float(np.std(self.by_seed, ddof=1)) if self.seeds > 1 else math.nan

    def to_json(self) -> dict[str, Any]:
        """Plain data; what is not defined is None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in {
                **dataclasses.asdict(self),
                "answer": self.answer.value,
                "by_seed": list(self.by_seed),
            }.items()
        }

    def __str__(self) -> str:
        """One line for people."""
        over = f", {self.clusters:,} clusters of {self.cluster}" if self.cluster else ""
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "1 seed"
        alone = ", test rows' error alone" if math.isnan(self.seed_error) else ""
        margin = f" (margin {self.margin:g})" if self.answer is Answer.NO_WORSE else ""
        return (
            f"{self.metric} {self.difference:+.5f} [{self.low:+.5f}, {self.high:+.5f}] against "
            f"{self.other}: {self.answer.value}{margin}; detectable {self.detectable:.5f} "
            f"({self.rows:,} rows{over}, {seeds}{alone})"
        )


def difference_of(
    ours: Sequence[Scores],
    other: Sequence[Scores],
    metric: str = "log_loss",
    cluster: str | None = None,
    *,
    raw: bool = False,
    seed_deviation: SeedDeviation | None = None,
) -> PairedDifference:
    """The difference of a metric with its error, not yet judged.

    Args:
        ours: one a seed.
        other: the same seeds in the same order.
        metric: see `models.metrics.paired.PAIRED_METRICS`.
        cluster: a key of the rows' clusters; None: every row stands for itself.
        raw: of the logits as the model gave them, instead of the calibrated ones.
        seed_deviation: from a pilot or other pairs; see `pooled_deviation`.

    Raises:
        ConfigError: not the same rows, not as many seeds, no such metric or cluster key.
        DataError: logits that are not numbers.
    """
    if not ours or len(ours) != len(other):
        raise ConfigError(
            "trainings are compared in pairs, at least one",
            f"{len(ours)} against {len(other)}",
            "Score both sides with the same seeds.",
        )
    rows = rows_of(*ours, *other)
    if cluster is not None and cluster not in rows.clusters:
        raise ConfigError(
            "rows are clustered by a key that the data has",
            repr(cluster),
            f"Choose from: {', '.join(rows.clusters) or 'none here'}; or leave it out.",
        )
    ours_logits, other_logits = (
        [scores.raw if raw else scores.logits for scores in side] for side in (ours, other)
    )
    clusters = None if cluster is None else rows.clusters[cluster]
    return paired_difference(
        metric,
        rows.label,
        ours_logits,
        other_logits,
        rows.weight,
        clusters,
        seed_deviation=seed_deviation,
    )


def compare(
    ours: Sequence[Scores],
    other: Sequence[Scores],
    metric: str = "log_loss",
    cluster: str | None = None,
    *,
    names: tuple[str, str] = ("ours", "other"),
    margin: float = 0.0,
    level: float = 0.95,
    raw: bool = False,
    seed_deviation: SeedDeviation | None = None,
) -> Comparison:
    """One comparison by itself; `compared_with` for several.

    Args:
        ours: one a seed.
        other: the same seeds in the same order.
        metric: one of DIRECTIONS.
        cluster: a key of the rows' clusters; None: every row stands for itself.
        names: of both.
        margin: in units of the metric; how much worse is still no worse.
        level: of the interval.
        raw: see `difference_of`.
        seed_deviation: see `difference_of`.

    Raises:
        ConfigError: as `difference_of`; a metric without a direction; a margin below 0.
    """
    found = difference_of(ours, other, metric, cluster, raw=raw, seed_deviation=seed_deviation)
    return judged(found, names=names, cluster=cluster, margin=margin, level=level)


def compared_with(
    other: Sequence[Scores],
    candidates: Mapping[str, Sequence[Scores]],
    metric: str = "log_loss",
    cluster: str | None = None,
    *,
    name: str = "other",
    margin: float = 0.0,
    level: float = 0.95,
    raw: bool = False,
    pool_seeds: bool = False,
) -> list[Comparison]:
    """Every candidate against the same other, corrected for their number, in the candidates' order.

    Args:
        other: one a seed.
        candidates: by name, the same seeds.
        metric: see `compare`.
        cluster: see `compare`.
        name: of the other.
        margin: see `compare`.
        level: of all intervals together.
        raw: see `difference_of`.
        pool_seeds: take the seeds' deviation of all candidates together. A few seeds a candidate say little
            about it; right where the candidates' trainings are about equally noisy.

    Raises:
        ConfigError: as `compare`.
    """

    def differences(known: SeedDeviation | None) -> list[PairedDifference]:
        return [
            difference_of(ours, other, metric, cluster, raw=raw, seed_deviation=known)
            for ours in candidates.values()
        ]

    found = differences(None)
    if pool_seeds and found and (pooled := pooled_deviation(found)) is not None:
        found = differences(pooled)
    levels, adjusted = holm([each.p_value() for each in found], level)
    return [
        judged(
            each,
            names=(candidate, name),
            cluster=cluster,
            margin=margin,
            level=its_level,
            p_adjusted=p,
        )
        for candidate, each, its_level, p in zip(candidates, found, levels, adjusted, strict=True)
    ]


def judged(
    found: PairedDifference,
    *,
    names: tuple[str, str] = ("ours", "other"),
    cluster: str | None = None,
    margin: float = 0.0,
    level: float = 0.95,
    p_adjusted: float | None = None,
) -> Comparison:
    """The answer to a difference.

    Raises:
        ConfigError: a metric without a direction, a margin below 0, an impossible level.
    """
    direction = DIRECTIONS.get(found.metric)
    if direction is None:
        raise ConfigError(
            f"what is better is known of {', '.join(DIRECTIONS)}",
            repr(found.metric),
            "Compare one of these, or read the difference itself (difference_of).",
        )
    if not margin >= 0:
        raise ConfigError("a margin must not be negative", margin, "Try 0.")
    interval = found.interval(level)
    # How much worse ours may be, and at least is.
    most, least = (
        (interval.high, interval.low) if direction < 0 else (-interval.low, -interval.high)
    )
    if math.isnan(most) or math.isnan(least):
        answer = Answer.TOO_FEW
    elif most < 0:
        answer = Answer.BETTER
    elif most <= margin:
        answer = Answer.NO_WORSE
    elif least > margin:
        answer = Answer.WORSE
    else:
        answer = Answer.TOO_FEW
    p_value = found.p_value()
    return Comparison(
        *names,
        metric=found.metric,
        difference=found.estimate,
        low=interval.low,
        high=interval.high,
        level=level,
        answer=answer,
        margin=margin,
        detectable=found.detectable(level),
        standard_error=found.standard_error,
        row_error=found.row_error,
        seed_error=found.seed_error,
        p_value=p_value,
        p_adjusted=p_value if p_adjusted is None else p_adjusted,
        seeds=len(found.by_seed),
        rows=found.rows,
        clusters=found.clusters,
        cluster=cluster,
        by_seed=found.by_seed,
    )


def holm(
    p_values: Sequence[float], level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Holm's step-down correction, as levels for intervals and as adjusted p-values, each [comparisons].

    An interval at its level leaves out zero exactly where the adjusted p-value is below 1 - level. What is
    not defined (NaN) counts as a comparison that was asked and never answered.

    Raises:
        ConfigError: level is not in (0, 1).
    """
    check_level(level)
    p = np.asarray(p_values, np.float64)
    ranked = np.where(np.isnan(p), 1.0, p)
    order = np.argsort(ranked, kind="stable")
    factors = np.arange(len(p), 0, -1.0)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * ranked[order]), 1.0)
    # Whoever comes after the first that fails stays at that one's level.
    failing = factors * ranked[order] >= 1.0 - level
    first = int(np.argmax(failing)) if failing.any() else len(p)
    shares = factors.copy()
    shares[first:] = factors[min(first, len(p) - 1)] if len(p) else 1.0
    levels = np.empty(len(p))
    levels[order] = 1.0 - (1.0 - level) / shares
    return levels, np.where(np.isnan(p), math.nan, adjusted)


def pooled_deviation(differences: Sequence[PairedDifference]) -> SeedDeviation | None:
    """The seeds' deviation of a difference, from several pairs that share their other side.

    Two differences with one side in common are correlated by 1/2, their squares by 1/4: that many pairs
    of S seeds have (S - 1) m / (1 + (m - 1) / 4) degrees of freedom, at most 4 (S - 1).

    Returns:
        None where no pair has two seeds.
    """
    several = [each for each in differences if len(each.by_seed) > 1]
    variances = [np.var(each.by_seed, ddof=1) for each in several]
    if not several or not np.isfinite(variances).all():
        return None
    freedom = float(np.mean([len(each.by_seed) - 1 for each in several]))
    count = len(several)
    return SeedDeviation(
        math.sqrt(float(np.mean(variances))), freedom * count / (1 + (count - 1) / 4)
    )


def seeds_needed(
    deviation: float, difference: float, *, level: float = 0.95, power: float = 0.8
) -> int:
    """Seeds a side that find a difference between two means: n = 2 (2.8 sd / delta)^2, at least 2.

    Args:
        deviation: of one side's metric over its seeds (not of the difference).
        difference: that should be found; in the same units.
        level: of the interval.
        power: the probability with which it should be found.

    Raises:
        ConfigError: a deviation below 0, a difference that is not above 0, an impossible level.
    """
    check_level(level)
    if not deviation >= 0:
        raise ConfigError("a deviation must not be negative", deviation, "Measure it by a pilot.")
    if not difference > 0:
        raise ConfigError("the difference to find must be positive", difference, "Try 0.001.")
    quantiles = float(ndtri(0.5 + level / 2) + ndtri(power))
    return max(2, math.ceil(2 * (quantiles * deviation / difference) ** 2))
