"""How far apart two runs' values of one feature are: PSI and Jensen-Shannon over common bins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import chi2

from pipeline.statistics.vocabulary import Vocabulary

__all__ = [
    "binned",
    "distances",
    "jensen_shannon",
    "population_stability_index",
    "vocabulary_drift",
]

_FLOOR = 1e-4  # of a share in PSI: an empty bin is far, not infinitely far
_MIN_COUNT = 10  # in both runs together; rarer values share the last bin, or chance would rule
_CHANCE = 0.9999  # what PSI may reach by chance: this quantile of it


def population_stability_index(
    before: np.ndarray, today: np.ndarray, floor: float = _FLOOR
) -> float:
    """PSI of two histograms over the same bins: counts or shares [bins] -> 0 or more.

    Shares below `floor` count as `floor`. Nothing at all on a side makes it NaN.
    """
    if not before.sum() or not today.sum():
        return math.nan
    p = np.maximum(before / before.sum(), floor)
    q = np.maximum(today / today.sum(), floor)
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(before: np.ndarray, today: np.ndarray) -> float:
    """Jensen-Shannon divergence of two histograms over the same bins, in bits: from 0 to 1.

    Nothing at all on a side makes it NaN.
    """
    if not before.sum() or not today.sum():
        return math.nan
    p, q = before / before.sum(), today / today.sum()
    middle = (p + q) / 2
    total = 0.0
    for share in (p, q):
        some = share > 0
        total += float((share[some] * np.log2(share[some] / middle[some])).sum()) / 2
    return min(max(total, 0.0), 1.0)


def distances(before: np.ndarray, today: np.ndarray, n: int, m: int) -> dict[str, float | None]:
    """PSI, what of it chance explains, and JS of two histograms that stand for n and m values."""
    if not n or not m:
        return {}
    used = int(((before > 0) | (today > 0)).sum())
    chance = chi2.ppf(_CHANCE, used - 1) * (1 / n + 1 / m) if used > 1 else 0.0
    # Of few values a share of 0 says little: half a value is then the least that can be told.
    floor = max(_FLOOR, 0.5 / min(n, m))
    return {
        "psi": population_stability_index(before, today, floor),
        "psi_by_chance": float(chance),
        "jensen_shannon": jensen_shannon(before, today),
    }


def binned(
    before: dict[str, Any], today: dict[str, Any], bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two numeric summaries -> counts over common bins, about equally full in their mixture."""
    if "histogram" in before and "histogram" in today:
        parts = [(s["histogram"]["edges"], s["histogram"]["counts"]) for s in (before, today)]
    else:  # older statistics: each 5 % of the values stands at its upper end
        parts = [(s["quantiles"][1:], [1] * len(s["quantiles"][1:])) for s in (before, today)]
        bins = min(bins, 10)
    values, index = np.unique(
        np.concatenate([np.array(v, float) for v, _ in parts]), return_inverse=True
    )
    counts = np.zeros((2, len(values)))
    sizes = [len(v) for v, _ in parts]
    for side, place in enumerate(np.split(index, [sizes[0]])):
        np.add.at(counts[side], place, parts[side][1])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    mixture = shares.mean(axis=0)
    below = np.cumsum(mixture) - mixture
    group = np.minimum((below * bins + 1e-9).astype(int), bins - 1)
    merged = [np.bincount(group, weights=c, minlength=bins) for c in counts]
    return merged[0], merged[1]


def vocabulary_drift(
    before: Vocabulary, today: Vocabulary, old: dict[str, Any], new: dict[str, Any], values: int
) -> dict[str, float | None]:
    """Distances between two vocabularies' counts, and the share of today's that is unseen."""
    kept_before, kept_today = int(before.counts.sum()), int(today.counts.sum())
    if not kept_before or not kept_today:
        return {}  # hashed only, or no value at all
    # Present rows hold one value each; of a multivalent column only the counted values are known.
    total_before = max(kept_before, old["present"])
    total_today = max(kept_today, new["present"])
    value = pa.concat_arrays([before.values, today.values])
    a = np.concatenate([before.counts, np.zeros(len(today.counts), np.int64)])
    b = np.concatenate([np.zeros(len(before.counts), np.int64), today.counts])
    joined = pa.table({"value": value, "a": a, "b": b}).group_by("value", use_threads=False)
    both = joined.aggregate([("a", "sum"), ("b", "sum")])
    a, b = both["a_sum"].to_numpy(), both["b_sum"].to_numpy()
    top = np.argsort(-(a / total_before + b / total_today), kind="stable")[:values]
    top = top[(a + b)[top] >= _MIN_COUNT]
    histograms = [
        np.append(c[top], total - c[top].sum())
        for c, total in ((a, total_before), (b, total_today))
    ]
    unseen = np.asarray(pc.invert(pc.is_in(today.values, value_set=before.values)))
    return {
        **distances(histograms[0], histograms[1], total_before, total_today),
        "unseen_share": float(today.counts[unseen].sum() / kept_today),
    }
