"""FeatureStatistics: what the transform needs to know of the training rows, and what people ask first.

A `PartialStatistics` describes one chunk; merging is exact and therefore independent of order and
of the number of workers: counts are integers, sums are kept as fractions (a float64 is one exactly),
quantiles come from counting the leading bits of the float32 values. Vocabulary counts are merged apart
(`pipeline.statistics.vocabulary`), partition by partition.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.schema import DatetimeFeature, FeatureSchema, NumericFeature, vocabulary_features
from pipeline.statistics.numeric import Histogram, NumericStatistics, prepare_numeric
from pipeline.statistics.times import TimeStatistics
from pipeline.statistics.vocabulary import Vocabulary, read_vocabulary, write_vocabulary

__all__ = [
    "FeatureStatistics",
    "Histogram",
    "NumericStatistics",
    "PartialStatistics",
    "prepare_numeric",
]


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
        times: by datetime feature name, training rows.
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
    times: dict[str, TimeStatistics] = dataclasses.field(default_factory=dict)

    @classmethod
    def merge(cls, parts: Iterable[PartialStatistics]) -> PartialStatistics:
        """The statistics of all rows together."""
        merged = cls()
        numeric: dict[str, list[NumericStatistics]] = {}
        times: dict[str, list[TimeStatistics]] = {}
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
            for name, found in part.times.items():
                times.setdefault(name, []).append(found)
        merged.numeric = {n: NumericStatistics.merge(parts) for n, parts in numeric.items()}
        merged.times = {n: TimeStatistics.merge(parts) for n, parts in times.items()}
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
        owners = vocabulary_features(schema.features)
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
            "time": {
                f.name: partial.times.get(f.name, TimeStatistics()).summarise(f.format)
                for f in schema.features
                if isinstance(f, DatetimeFeature)
            },
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
