"""Columns of a split to break metrics down by, in the words of the raw log.

Only the encoded rows are kept, so values are read back from ids: unseen values cannot be told apart
any more, and a number is told by the quarter of the rows that it falls in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.records.data_directory import DataDirectory
from pipeline.schema import (
    FeatureSchema,
    NumericFeature,
    SequenceColumn,
    VocabularyFeature,
    vocabulary_owner,
)
from pipeline.statistics.feature_statistics import FeatureStatistics

__all__ = ["UNSEEN", "check_segments", "segment_columns"]

UNSEEN = "(unseen)"
_QUARTERS = 4


def check_segments(data: DataDirectory, names: Sequence[str]) -> None:
    """Refuses what a split cannot be broken down by.

    Raises:
        ConfigError: a name that is no feature (by its encoded name) and no carried column.
    """
    known = _known(data)
    for name in names:
        if name not in known:
            raise ConfigError(
                "metrics are broken down by a feature or a carried column of the schema",
                repr(name),
                f"Choose from: {', '.join(known)}.",
            )


def segment_columns(data: DataDirectory, split: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The values of columns in file order, object [rows] each; None is missing.

    A categorical feature or a cross gives its values; a datetime part or quantile bucket its number; a
    sequence how many values a row has; a number or carried column its quarter of the rows, with
    bounds in the column's own units.

    Args:
        data: the data directory.
        split: train, validation or test.
        names: see `check_segments`.

    Raises:
        ConfigError: an unknown name, or no rows in the split.
    """
    from pipeline.records.dataset import evaluation_batches

    check_segments(data, names)
    spec = data.spec
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    columns = {"numeric": list(spec.numeric), "ids": [f.name for f in spec.categorical]}
    columns["carry"] = list(spec.carry)
    missing = {n: f"{n}_missing" for n in names if f"{n}_missing" in spec.numeric}
    for batch in evaluation_batches(data, split, 8192):
        for name in names:
            if f"sequence/{name}" in batch:
                parts[name].append(np.count_nonzero(batch[f"sequence/{name}"].numpy(), axis=1))
                continue
            tensor = next(t for t, found in columns.items() if name in found)
            values = batch[tensor].numpy()[:, columns[tensor].index(name)]
            if name in missing:
                absent = batch["numeric"].numpy()[:, spec.numeric.index(missing[name])] > 0
                values = np.where(absent, np.nan, values)
            parts[name].append(values)
    statistics = FeatureStatistics.load(data.path / "statistics")
    return {
        name: _named(name, np.concatenate(values), data, statistics)
        for name, values in parts.items()
    }


def _known(data: DataDirectory) -> tuple[str, ...]:
    spec = data.spec
    sequences = (s.name for s in spec.sequences)
    return (*spec.numeric, *(f.name for f in spec.categorical), *sequences, *spec.carry)


def _named(
    name: str, values: np.ndarray, data: DataDirectory, statistics: FeatureStatistics
) -> np.ndarray:
    """The values of one column for people."""
    schema: FeatureSchema = data.schema
    by_name: dict[str, Any] = {f.name: f for f in schema.features}
    feature = by_name.get(name)
    if isinstance(feature, SequenceColumn):
        return np.array([str(n) for n in range(feature.max_length + 1)], object)[values]
    if name in data.spec.numeric or name in data.spec.carry:
        numeric = feature if isinstance(feature, NumericFeature) else None
        return _quarters(values, numeric, statistics)
    largest = int(values.max(initial=0))
    if not isinstance(feature, VocabularyFeature):  # a datetime part or a quantile bucket
        return np.array([None, *(str(i) for i in range(largest))], object)[values]
    owner = by_name[vocabulary_owner(feature)]
    kept = statistics.vocabularies[owner.name].values.to_pylist() if owner.max_vocab_size else []
    texts = [value.decode("utf-8", "replace") for value in kept]
    return np.array([None, *[UNSEEN] * owner.num_oov_buckets, *texts], object)[values]


def _quarters(
    values: np.ndarray, feature: NumericFeature | None, statistics: FeatureStatistics
) -> np.ndarray:
    """The quarter of the rows that each value falls in, as "1: 0 .. 2.5"."""
    raw = values.astype(np.float64)
    if feature is not None:
        raw = _undone(raw, feature, statistics.numbers["numeric"][feature.name])
    named = np.full(len(raw), None, object)
    present = np.isfinite(raw)
    if not present.any():
        return named
    edges = np.unique(np.quantile(raw[present], np.arange(1, _QUARTERS) / _QUARTERS))
    quarter = np.searchsorted(edges, raw[present], side="left")
    texts = np.empty(len(edges) + 1, object)
    for i in np.unique(quarter):
        inside = raw[present][quarter == i]
        texts[i] = f"{i + 1}: {inside.min():.4g} .. {inside.max():.4g}"
    named[present] = texts[quarter]
    return named


def _undone(encoded: np.ndarray, feature: NumericFeature, summary: dict[str, Any]) -> np.ndarray:
    """The column's own units again (see `numeric_transform.encode_numeric`)."""
    x = encoded
    if feature.scale == "z_score":
        x = x * (summary["prepared_standard_deviation"] or 1.0) + summary["prepared_mean"]
    return np.sign(x) * np.expm1(np.abs(x)) if feature.log1p else x
