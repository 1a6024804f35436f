"""Metrics of rows that are seen once and not kept: mergeable over replicas, workers and days.

Sums (log loss, calibration, entropy) are exact. Ranking metrics come from a fine histogram of the
logits, whose bins are narrow where logits crowd and grow with the distance from zero, so that it
reaches a thousand on both sides. Rows of one bin count as tied.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.metrics.checked_arrays import Array, checked_label, dot, loss_terms, ratio
from models.metrics.probability import entropy, toss_from
from models.metrics.ranking import auc_from_groups, precision_from_groups
from pipeline.errors import DataError

__all__ = ["StreamingMetrics"]

NUM_BINS = 2**19
# bin = asinh(logit / SCALE): width 1e-4 at logit 0, 1.3e-4 at -4, 1.2e-3 at -50; ends at +-1000.
SCALE = 4.0
EDGE = math.asinh(1e3 / SCALE)
_SUMS = ("weight", "clicks", "predicted", "click_loss", "other_loss")


class StreamingMetrics:
    """A mergeable summary of (label, logit, weight) rows, 8 MiB whatever their number.

    Example:
        >>> day, night = StreamingMetrics(), StreamingMetrics()
        >>> day.update([1, 0], [0.0, -1.0])
        >>> night.update([0], [1.0])
        >>> (day + night).result()["auc"]
        0.5
    """

    def __init__(self) -> None:
        self._clicks: Array = np.zeros(NUM_BINS)
        self._others: Array = np.zeros(NUM_BINS)
        self._sums = dict.fromkeys(_SUMS, 0.0)
        self._count = 0

    def update(self, label: ArrayLike, logits: ArrayLike, weight: ArrayLike | None = None) -> None:
        """Adds rows: label 0 or 1, logits, weight not negative, each [rows].

        Raises:
            DataError: shapes differ, or a label, logit or weight is impossible.
        """
        labels = checked_label(label, binary=True)
        labels, p, loss, w = loss_terms(labels, logits, None, weight)
        click, other = w * labels, w * (1.0 - labels)
        z = np.arcsinh(np.asarray(logits, dtype=np.float64) / SCALE)
        bins = np.clip((z + EDGE) * (NUM_BINS / (2 * EDGE)), 0, NUM_BINS - 1).astype(np.int64)
        np.add.at(self._clicks, bins, click)
        np.add.at(self._others, bins, other)
        self._count += len(labels)
        for name, value in (
            ("weight", float(w.sum())),
            ("clicks", float(click.sum())),
            ("predicted", float(np.dot(w, p))),
            ("click_loss", dot(click, loss)),
            ("other_loss", dot(other, loss)),
        ):
            self._sums[name] += value

    def __add__(self, other: StreamingMetrics) -> StreamingMetrics:
        """The summary of both row sets together; neither operand changes."""
        if not isinstance(other, StreamingMetrics):
            return NotImplemented
        merged = StreamingMetrics()
        merged._clicks = self._clicks + other._clicks
        merged._others = self._others + other._others
        merged._sums = {name: self._sums[name] + other._sums[name] for name in _SUMS}
        merged._count = self._count + other._count
        return merged

    def auc_error_bound(self) -> float:
        """The most that binning can have moved the AUC: half the share of pairs in one bin."""
        pairs = float(self._clicks.sum()) * float(self._others.sum())
        return ratio(0.5 * float(np.dot(self._clicks, self._others)), pairs)

    def result(self) -> dict[str, float]:
        """The metrics by the names that `evaluate` uses; NaN where one is not defined."""
        total, clicks = self._sums["weight"], self._sums["clicks"]
        mean_label = ratio(clicks, total)
        mean_loss = ratio(self._sums["click_loss"] + self._sums["other_loss"], total)
        wll = 0.5 * ratio(self._sums["click_loss"], clicks) + 0.5 * ratio(
            self._sums["other_loss"], float(self._others.sum())
        )
        average_precision = precision_from_groups(self._clicks, self._others)
        return {
            "count": float(self._count),
            "clicks": clicks,
            "mean_label": mean_label,
            "mean_probability": ratio(self._sums["predicted"], total),
            "auc": auc_from_groups(self._clicks, self._others),
            "average_precision": average_precision,
            "toss_metric": toss_from(average_precision, wll),
            "log_loss": mean_loss,
            "normalized_entropy": ratio(mean_loss, entropy(mean_label)),
            "calibration_ratio": ratio(self._sums["predicted"], clicks),
        }

    def state(self) -> dict[str, NDArray[np.float64]]:
        """Arrays that hold everything and may be summed over replicas: clicks, others, sums."""
        sums = [float(self._count), *(self._sums[name] for name in _SUMS)]
        return {"clicks": self._clicks, "others": self._others, "sums": np.array(sums)}

    @classmethod
    def from_state(cls, state: dict[str, NDArray[np.float64]]) -> StreamingMetrics:
        """The summary that `state` describes (or a sum of several).

        Raises:
            DataError: the arrays have other shapes, as those of another version would.
        """
        expected = {"clicks": (NUM_BINS,), "others": (NUM_BINS,), "sums": (1 + len(_SUMS),)}
        shapes = {name: np.shape(array) for name, array in state.items()}
        if shapes != expected:
            raise DataError(
                f"a metrics state must have the shapes {expected}",
                shapes,
                "It was written by another version; compute it again.",
            )
        metrics = cls()
        metrics._clicks = np.array(state["clicks"], dtype=np.float64)
        metrics._others = np.array(state["others"], dtype=np.float64)
        metrics._count = round(float(state["sums"][0]))
        metrics._sums = dict(zip(_SUMS, map(float, state["sums"][1:]), strict=True))
        return metrics
