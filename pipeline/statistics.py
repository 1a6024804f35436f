"""FeatureStatistics: what the transform needs to know of the training rows, and what people ask first.

A `PartialStatistics` describes one chunk; merging is exact and therefore independent of order and
of the number of workers: counts are integers, sums are kept as fractions (a float64 is one exactly),
quantiles come from counting the leading bits of the float32 values. Vocabulary counts are merged apart
(`pipeline.vocabulary`), partition by partition.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.schema import FeatureSchema, NumericFeature, VocabularyFeature
from pipeline.vocabulary import Vocabulary, read_vocabulary, write_vocabulary

__all__ = [
    "FeatureStatistics",
    "Histogram",
    "NumericStatistics",
    "PartialStatistics",
    "prepare_numeric",
]

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


@dataclasses.dataclass
class PartialStatistics:
    """Statistics of some rows, mergeable in any order with the same result to the last bit.

    Attributes:
        input_rows, rejected_rows: rows seen, and those of them that could not be read.
        reasons: how many rejects for which reason.
        split_rows: examples by split, before down-sampling.
        label_weight, click_weight: sums of weights over the training rows, and of those with a click.
        hours: hour since 1970 -> (examples, clicks), over all splits; empty without a time column.
        numeric: by feature name, training rows.
        present, missing: by text feature name, training rows.
    """

    input_rows: int = 0
    rejected_rows: int = 0
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    split_rows: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    label_weight: Fraction = Fraction(0)
    click_weight: Fraction = Fraction(0)
    hours: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    numeric: dict[str, NumericStatistics] = dataclasses.field(default_factory=dict)
    present: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    missing: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @classmethod
    def merge(cls, parts: Iterable[PartialStatistics]) -> PartialStatistics:
        """The statistics of all rows together."""
        merged = cls()
        numeric: dict[str, list[NumericStatistics]] = {}
        for part in parts:
            merged.input_rows += part.input_rows
            merged.rejected_rows += part.rejected_rows
            merged.label_weight += part.label_weight
            merged.click_weight += part.click_weight
            for own, other in (
                (merged.reasons, part.reasons),
                (merged.split_rows, part.split_rows),
                (merged.present, part.present),
                (merged.missing, part.missing),
            ):
                own.update(other)
            for hour, (rows, clicks) in part.hours.items():
                before = merged.hours.get(hour, (0, 0))
                merged.hours[hour] = (before[0] + rows, before[1] + clicks)
            for name, statistics in part.numeric.items():
                numeric.setdefault(name, []).append(statistics)
        merged.numeric = {n: NumericStatistics.merge(parts) for n, parts in numeric.items()}
        return merged


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """Statistics of a training log, complete: the numbers by feature and the vocabularies.

    Attributes:
        numbers: the contents of statistics.json.
        vocabularies: by feature name, most frequent first, ties in byte order.
    """

    numbers: dict[str, Any]
    vocabularies: Mapping[str, Vocabulary]

    @classmethod
    def assemble(
        cls,
        schema: FeatureSchema,
        partial: PartialStatistics,
        vocabularies: Mapping[str, Vocabulary],
    ) -> FeatureStatistics:
        """Final statistics from merged partial ones."""
        weight = float(partial.label_weight)
        numeric = {
            f.name: partial.numeric.get(f.name, NumericStatistics()).summarise(f.quantile_buckets)
            for f in schema.features
            if isinstance(f, NumericFeature)
        }
        owners = {f.name: f for f in schema.features if isinstance(f, VocabularyFeature)}
        text = {
            name: {
                "present": partial.present[name],
                "missing": partial.missing[name],
                "distinct": vocabulary.num_distinct,
                "kept": len(vocabulary.values),
                "num_oov_buckets": owners[name].num_oov_buckets,
                "top": [
                    [value.decode("utf-8", "replace"), int(count)]
                    for value, count in zip(
                        vocabulary.values[:5].to_pylist(), vocabulary.counts[:5], strict=True
                    )
                ],
            }
            for name, vocabulary in vocabularies.items()
        }
        numbers = {
            "schema": schema.name,
            "schema_fingerprint": schema.fingerprint(),
            "training_rows": partial.split_rows["train"],
            "label_rate": float(partial.click_weight / partial.label_weight) if weight else None,
            "label_rate_by_hour": {
                str(h): [rows, clicks] for h, (rows, clicks) in sorted(partial.hours.items())
            },
            "numeric": numeric,
            "text": text,
        }
        return cls(numbers, dict(vocabularies))

    def save(self, directory: Path) -> None:
        """Writes statistics.json and vocabulary/<feature>.csv."""
        (directory / "vocabulary").mkdir(parents=True, exist_ok=True)
        (directory / "statistics.json").write_text(json.dumps(self.numbers, indent=1) + "\n")
        for name, vocabulary in self.vocabularies.items():
            write_vocabulary(vocabulary, directory / "vocabulary" / f"{name}.csv")

    @classmethod
    def load(cls, directory: str | Path) -> FeatureStatistics:
        """Reads what `save` wrote.

        Raises:
            ConfigError: there are no statistics in `directory`.
        """
        directory = Path(directory)
        try:
            numbers = json.loads((directory / "statistics.json").read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                "a statistics directory must hold statistics.json",
                f"{directory} ({type(error).__name__})",
                "Point at the `statistics` directory inside a data directory.",
            ) from None
        vocabularies = {
            name: read_vocabulary(
                directory / "vocabulary" / f"{name}.csv", num_distinct=summary["distinct"]
            )
            for name, summary in numbers["text"].items()
        }
        return cls(numbers, vocabularies)


def value_counts(column: pa.Array) -> pa.Table:
    """Counts of the non-empty values of a binary array: table(value, count)."""
    import pyarrow.compute as pc

    counted = pc.value_counts(column)
    values, counts = counted.field("values"), counted.field("counts")
    mask = pc.not_equal(values, b"")
    return pa.table({"value": values.filter(mask), "count": counts.filter(mask)})
