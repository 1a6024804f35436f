"""Bootstrap intervals of the metrics that are no function of a few sums: average precision and Toss.

The Poisson bootstrap of `intervals`, with the rows sorted once: a replicate is a cumulative sum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from models.metrics.checked_arrays import checked_rows, loss_terms, ratio
from models.metrics.intervals import Interval, check_bootstrap, percentile_interval, poisson_table
from models.metrics.probability import toss_from
from models.metrics.ranking import precision_from_groups

__all__ = ["ranking_intervals"]


def ranking_intervals(
    label: ArrayLike,
    logits: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    num_replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Percentile intervals of average_precision and toss_metric.

    The same seed gives the same interval. NaN where the metric is not defined.

    Raises:
        DataError: impossible label, logit or weight.
        ConfigError: level is not in (0, 1) or there are fewer than 2 replicates.
    """
    check_bootstrap(num_replicates, level)
    labels, z, weights = checked_rows(label, logits, weight)
    order = np.argsort(z, kind="stable")
    labels, z = labels[order], z[order]
    _, _, loss, weights = loss_terms(labels, z, None, weights[order])
    starts = np.flatnonzero(np.concatenate([[True], z[1:] != z[:-1]])) if len(z) else np.zeros(0)
    terms = np.stack([weights * labels, weights * (1.0 - labels)], axis=1)  # [rows, 2]

    def measured(counts: np.ndarray | float) -> tuple[float, float]:
        """(average precision, Toss metric) of the rows, each counted that many times."""
        counted = terms * np.reshape(counts, (-1, 1))
        groups = np.add.reduceat(counted, starts.astype(np.int64), axis=0)
        precision = precision_from_groups(groups[:, 0], groups[:, 1])
        with np.errstate(invalid="ignore"):
            click, other = (float(np.dot(counted[:, i], loss)) for i in range(2))
        clicks, others = counted.sum(axis=0)
        weighted_loss = 0.5 * ratio(click, float(clicks)) + 0.5 * ratio(other, float(others))
        return precision, toss_from(precision, weighted_loss)

    names = ("average_precision", "toss_metric")
    if not len(z):
        return {name: Interval(np.nan, np.nan, np.nan, np.nan, level) for name in names}
    rng = np.random.default_rng(seed)
    poisson = poisson_table()
    drawn = np.array(
        [
            measured(poisson[rng.integers(0, 2**16, len(z), dtype=np.uint16)].astype(np.float64))
            for _ in range(num_replicates)
        ]
    )  # [replicates, 2]
    return {
        name: percentile_interval(float(estimate), values, level)
        for name, estimate, values in zip(names, measured(1.0), drawn.T, strict=True)
    }
