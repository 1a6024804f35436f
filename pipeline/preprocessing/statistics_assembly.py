"""Merged counts and an earlier run's vocabularies -> the statistics of a data directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.preprocessing.count_pass import text_features
from pipeline.schema import FeatureSchema, vocabulary_owner
from pipeline.statistics.feature_statistics import FeatureStatistics, PartialStatistics
from pipeline.statistics.vocabulary import Vocabulary, read_vocabulary

__all__ = ["assemble_statistics", "base_vocabularies"]


def base_vocabularies(schema: FeatureSchema, directory: str | Path) -> dict[str, list[bytes]]:
    """The values whose ids must stay what they are, by feature.

    Raises:
        ConfigError: the ids would shift, since the number of unseen buckets is not what it was.
    """
    earlier = FeatureStatistics.load(directory)
    base = {}
    for feature in text_features(schema):
        if feature.name not in earlier.vocabularies:
            continue
        before = earlier.numbers["text"][feature.name]["num_oov_buckets"]
        if before != feature.num_oov_buckets:
            raise ConfigError(
                "num_oov_buckets must stay what it was, or every id would shift",
                f"{feature.name}: {feature.num_oov_buckets} now, {before} in {directory}",
                f"Set num_oov_buckets: {before}, or leave --base-statistics out.",
            )
        base[feature.name] = earlier.vocabularies[feature.name].values.to_pylist()
    return base


def assemble_statistics(
    schema: FeatureSchema,
    partial: PartialStatistics,
    distinct: dict[str, int],
    base: dict[str, list[bytes]],
    staging: Path,
) -> FeatureStatistics:
    """Statistics from the merged parts; a feature without any value keeps its base vocabulary."""
    vocabularies = {}
    for feature in text_features(schema):
        name = feature.name
        if vocabulary_owner(feature) != name:
            continue
        if name in distinct:
            path = staging / "statistics" / "vocabulary" / f"{name}.csv"
            vocabularies[name] = read_vocabulary(path, distinct[name])
        else:
            kept = pa.array(base.get(name, []) if feature.max_vocab_size else [], pa.binary())
            vocabularies[name] = Vocabulary(kept, np.zeros(len(kept), np.int64), 0)
    return FeatureStatistics.assemble(schema, partial, vocabularies)
