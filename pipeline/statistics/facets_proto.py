"""FeatureStatistics as TensorFlow Metadata's statistics proto, for Facets and TFDV.

    tfdv.visualize_statistics(tfdv.load_stats_binary("DATA_DIR/statistics/statistics.pb"))

What statistics.json does not hold is left unset rather than guessed. Needs no TensorFlow.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow.compute as pc
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.statistics.vocabulary import Vocabulary

__all__ = ["to_proto"]

_TOP_VALUES = 20
_RANK_BUCKETS = 100
_STANDARD_BUCKETS = 10

_Feature: Any = statistics_pb2.FeatureNameStatistics
_Histogram: Any = statistics_pb2.Histogram


def to_proto(
    statistics: FeatureStatistics, name: str = "train"
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """One data set's statistics as a proto.

    Numeric features become FLOAT with moments, a histogram of equal widths and one of quantiles;
    text features become STRING with the number of distinct values, the most frequent ones and a
    histogram by rank. Counts of a text feature's values are those of its vocabulary: what its
    limits dropped is in `unique` and in `num_non_missing`, not among the values.

    Args:
        statistics: of the training rows.
        name: of the data set, shown as its legend.
    """
    found = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = found.datasets.add(name=name, num_examples=statistics.numbers["training_rows"])
    for feature, summary in statistics.numbers["numeric"].items():
        _add_numeric(dataset.features.add(type=_Feature.FLOAT), feature, summary)
    for feature, summary in statistics.numbers["text"].items():
        vocabulary = statistics.vocabularies[feature]
        _add_text(dataset.features.add(type=_Feature.STRING), feature, summary, vocabulary)
    return found


def _add_numeric(entry: Any, feature: str, summary: dict[str, Any]) -> None:
    entry.path.step.append(feature)
    stats = entry.num_stats
    _set_common(stats.common_stats, summary["count"], summary["missing"])
    quantiles = summary["quantiles"]
    if not summary["count"] or not quantiles:
        return
    stats.mean, stats.std_dev = summary["mean"], summary["standard_deviation"]
    stats.min, stats.max = summary["min"], summary["max"]
    stats.median = quantiles[len(quantiles) // 2]
    histogram = summary.get("histogram")
    if histogram is not None:
        counts = dict(zip(histogram["edges"], histogram["counts"], strict=True))
        stats.num_zeros = counts.get(0.0, 0)
    stats.histograms.append(_standard_histogram(summary))
    by_quantile = stats.histograms.add(type=_Histogram.QUANTILES)
    share = summary["count"] / (len(quantiles) - 1)
    for low, high in itertools.pairwise(quantiles):
        by_quantile.buckets.add(low_value=low, high_value=high, sample_count=share)


def _standard_histogram(summary: dict[str, Any]) -> statistics_pb2.Histogram:
    """Buckets of equal width between minimum and maximum; the counts add up to the values."""
    low, high, count = summary["min"], summary["max"], summary["count"]
    edges = np.linspace(low, high, _STANDARD_BUCKETS + 1)
    if "histogram" in summary:
        values = np.clip(summary["histogram"]["edges"], low, high)
        counts, _ = np.histogram(values, edges, weights=summary["histogram"]["counts"])
    else:  # each slice between two quantiles stands at its upper end
        points = np.array(summary["quantiles"][1:]).clip(low, high)
        counts = np.histogram(points, edges)[0] * (count / len(points))
    found = _Histogram(type=_Histogram.STANDARD)
    for (a, b), n in zip(itertools.pairwise(edges.tolist()), counts.tolist(), strict=True):
        found.buckets.add(low_value=a, high_value=b, sample_count=n)
    return found


def _add_text(entry: Any, feature: str, summary: dict[str, Any], vocabulary: Vocabulary) -> None:
    entry.path.step.append(feature)
    stats = entry.string_stats
    _set_common(stats.common_stats, summary["present"], summary["missing"])
    stats.unique = summary["distinct"]
    counts = vocabulary.counts
    if not len(counts) or not counts.sum():
        return
    # A vocabulary that kept earlier ids in front is not ordered by count.
    order = np.argsort(-counts, kind="stable")
    texts = [
        vocabulary.values[int(i)].as_py().decode("utf-8", "replace")
        for i in order[: max(_TOP_VALUES, _RANK_BUCKETS)]
    ]
    for text, count in zip(texts, counts[order].tolist(), strict=False):
        if len(stats.top_values) < _TOP_VALUES:
            stats.top_values.add(value=text, frequency=count)
        rank = len(stats.rank_histogram.buckets)
        if rank < _RANK_BUCKETS:
            stats.rank_histogram.buckets.add(
                low_rank=rank, high_rank=rank, label=text, sample_count=count
            )
    lengths = np.asarray(pc.binary_length(vocabulary.values))
    stats.avg_length = float(lengths @ counts / counts.sum())


def _set_common(common: Any, present: int, missing: int) -> None:
    common.num_non_missing, common.num_missing = present, missing
