"""Moments and quantiles of one numeric feature, merged exactly whatever the order of the parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from pipeline.schema import NumericFeature

__all__ = ["Histogram", "NumericStatistics", "prepare_numeric"]

_DROPPED_BITS = (
    12  # of float32's 23 mantissa bits; the 11 kept give bins 0.05 % wide, exact to 2048
)
_SIGN = 1 << (31 - _DROPPED_BITS)


class Histogram:
    """Counts of float32 values by their sign, exponent and 11 leading mantissa bits; mergeable exactly."""

    def __init__(self, bins: np.ndarray, counts: np.ndarray) -> None:
        self.bins, self.counts = bins, counts

    @classmethod
    def of(cls, values: np.ndarray) -> Histogram:
        """Counts finite float32 `values` [n]."""
        bits = (values + np.float32(0)).astype(np.float32).view(np.int32) >> _DROPPED_BITS
        ordered = np.where(
            bits < 0, ~(bits + _SIGN), bits
        )  # the order of bins is that of the values
        bins, counts = np.unique(ordered, return_counts=True)
        return cls(bins, counts.astype(np.int64))

    @classmethod
    def merge(cls, parts: Iterable[Histogram]) -> Histogram:
        """The histogram of all values together."""
        parts = list(parts)
        bins = np.concatenate([p.bins for p in parts] or [np.zeros(0, np.int32)])
        counts = np.concatenate([p.counts for p in parts] or [np.zeros(0, np.int64)])
        merged, index = np.unique(bins, return_inverse=True)
        total = np.zeros(len(merged), np.int64)
        np.add.at(total, index, counts)
        return cls(merged, total)

    def quantile(self, q: np.ndarray) -> np.ndarray:
        """Edges (nearer to zero) of the bins that hold the `q`-quantiles: float64, within 0.05 %."""
        cumulative = np.cumsum(self.counts)
        rank = np.ceil(np.asarray(q) * cumulative[-1]).clip(1)
        return self._edges()[np.searchsorted(cumulative, rank)]

    def coarse(self, mantissa_bits: int = 3) -> dict[str, list[float]]:
        """Edges (nearer to zero) and counts, 2**mantissa_bits bins an octave: comparable between runs."""
        shift = 23 - _DROPPED_BITS - mantissa_bits
        bins, index = np.unique(self.bins >> shift, return_inverse=True)
        counts = np.bincount(index, weights=self.counts, minlength=len(bins)).astype(np.int64)
        magnitude = np.where(bins < 0, ~bins, bins).astype(np.int32) << (_DROPPED_BITS + shift)
        edges = magnitude.astype(np.int32).view(np.float32).astype(np.float64)
        return {"edges": np.where(bins < 0, -edges, edges).tolist(), "counts": counts.tolist()}

    def _edges(self) -> np.ndarray:
        bits = np.where(self.bins < 0, ~self.bins - _SIGN, self.bins).astype(np.int32)
        return (bits << _DROPPED_BITS).astype(np.int32).view(np.float32).astype(np.float64)


def prepare_numeric(values: np.ndarray, feature: NumericFeature) -> np.ndarray:
    """NumPy's view of the transform up to the scaling: float64 [n], none missing -> float64 [n]."""
    x = values if feature.clip is None else np.clip(values, *feature.clip)
    return np.sign(x) * np.log1p(np.abs(x)) if feature.log1p else x


@dataclasses.dataclass
class NumericStatistics:
    """Moments of one numeric feature; `prepared_*` after clip and log1p, missing values filled in.

    Attributes:
        count: values present.
        missing: values absent, NaN or infinite.
        minimum, maximum: of the present values, raw units.
        total, total_squares: sums over the present values, raw units.
        prepared_total, prepared_squares: sums over all rows as the model sees them, before scaling.
        histogram: of the present values.
    """

    count: int = 0
    missing: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    total: Fraction = Fraction(0)
    total_squares: Fraction = Fraction(0)
    prepared_total: Fraction = Fraction(0)
    prepared_squares: Fraction = Fraction(0)
    histogram: Histogram = dataclasses.field(default_factory=lambda: Histogram.merge([]))

    @classmethod
    def of(cls, values: np.ndarray, feature: NumericFeature) -> NumericStatistics:
        """Statistics of float32 `values` [n], NaN or infinite where missing."""
        present = np.isfinite(values)
        kept = values[present]
        filled = np.where(present, values.astype(np.float64), feature.missing_value)
        prepared, exact = prepare_numeric(filled, feature), kept.astype(np.float64)
        total, total_squares = _sums(exact)
        prepared_total, prepared_squares = _sums(prepared)
        return cls(
            count=len(kept),
            missing=len(values) - len(kept),
            minimum=float(exact.min()) if len(kept) else math.inf,
            maximum=float(exact.max()) if len(kept) else -math.inf,
            total=total,
            total_squares=total_squares,
            prepared_total=prepared_total,
            prepared_squares=prepared_squares,
            histogram=Histogram.of(kept),
        )

    @classmethod
    def merge(cls, parts: Iterable[NumericStatistics]) -> NumericStatistics:
        """Statistics of all values together; exact, whatever the order."""
        parts = list(parts)
        return cls(
            count=sum(p.count for p in parts),
            missing=sum(p.missing for p in parts),
            minimum=min((p.minimum for p in parts), default=math.inf),
            maximum=max((p.maximum for p in parts), default=-math.inf),
            total=sum((p.total for p in parts), Fraction(0)),
            total_squares=sum((p.total_squares for p in parts), Fraction(0)),
            prepared_total=sum((p.prepared_total for p in parts), Fraction(0)),
            prepared_squares=sum((p.prepared_squares for p in parts), Fraction(0)),
            histogram=Histogram.merge(p.histogram for p in parts),
        )

    def summarise(self, num_quantiles: int | None) -> dict[str, Any]:
        """The JSON view: raw moments and quantiles, and the numbers that the transform uses."""
        mean, deviation = _moments(self.count, self.total, self.total_squares)
        rows = self.count + self.missing
        prepared_mean, prepared_deviation = _moments(
            rows, self.prepared_total, self.prepared_squares
        )
        summary: dict[str, Any] = {
            "count": self.count,
            "missing": self.missing,
            "min": self.minimum if self.count else None,
            "max": self.maximum if self.count else None,
            "mean": mean if self.count else None,
            "standard_deviation": deviation if self.count else None,
            "prepared_mean": prepared_mean,
            "prepared_standard_deviation": prepared_deviation,
        }
        points = np.arange(0, 21) / 20
        if self.count:
            summary["histogram"] = self.histogram.coarse()
        summary["quantiles"] = self.histogram.quantile(points).tolist() if self.count else []
        if num_quantiles:
            inner = np.arange(1, num_quantiles) / num_quantiles
            edges = self.histogram.quantile(inner) if self.count else np.zeros(0)
            summary["bucket_boundaries"] = np.unique(edges).tolist()
        return summary


def _sums(x: np.ndarray) -> tuple[Fraction, Fraction]:
    """(sum, sum of squares) of float64 [n], worked out around the first value.

    The spread of a constant column is then exactly 0, and that of values far from 0 is not lost.
    """
    if not len(x):
        return Fraction(0), Fraction(0)
    rest = x - x[0]
    first, sum_rest = Fraction(float(x[0])), Fraction(float(rest.sum()))
    squares = Fraction(float(np.square(rest).sum())) + 2 * first * sum_rest + len(x) * first**2
    return len(x) * first + sum_rest, squares


def _moments(count: int, total: Fraction, squares: Fraction) -> tuple[float, float]:
    """(mean, population standard deviation); (0, 0) of nothing."""
    if not count:
        return 0.0, 0.0
    mean = total / count
    variance = max(squares / count - mean * mean, Fraction(0))
    return float(mean), math.sqrt(variance)
