"""The statistics proto: parsed back, its numbers are those of statistics.json."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline.schema import CategoricalFeature, FeatureSchema, LabelSpec, NumericFeature
from pipeline.statistics.facets_proto import to_proto
from pipeline.statistics.feature_statistics import (
    FeatureStatistics,
    NumericStatistics,
    PartialStatistics,
)
from pipeline.statistics.vocabulary import Vocabulary

PRICE = NumericFeature(name="price")
SCHEMA = FeatureSchema(
    name="shop",
    label=LabelSpec(column="click"),
    features=(PRICE, CategoricalFeature(name="site")),
)
VALUES = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 10, np.nan, np.nan], np.float32)


def statistics(
    values: np.ndarray = VALUES, counts: dict[bytes, int] | None = None
) -> FeatureStatistics:
    counts = {b"b": 3, b"longer": 5, b"\xff": 1} if counts is None else counts
    partial = PartialStatistics()
    partial.split_rows["train"] = 12
    partial.numeric["price"] = NumericStatistics.of(values, PRICE)
    partial.present["site"], partial.missing["site"] = sum(counts.values()), 3
    vocabulary = Vocabulary(
        pa.array(counts, pa.binary()), np.array(list(counts.values()), np.int64), len(counts) + 7
    )
    return FeatureStatistics.assemble(SCHEMA, partial, {"site": vocabulary})


def parsed_back(given: FeatureStatistics) -> statistics_pb2.DatasetFeatureStatistics:
    data = to_proto(given, "today").SerializeToString(deterministic=True)
    (dataset,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(data).datasets
    return dataset


def test_numeric_numbers_by_hand() -> None:
    dataset = parsed_back(statistics())
    assert (dataset.name, dataset.num_examples) == ("today", 12)
    price = dataset.features[0]
    assert (price.path.step, price.type) == (["price"], price.FLOAT)
    stats = price.num_stats
    assert (stats.common_stats.num_non_missing, stats.common_stats.num_missing) == (10, 2)
    assert (stats.min, stats.max, stats.mean, stats.median) == (0.0, 10.0, 3.8, 3.0)
    # mean of squares 24.0, minus 3.8 ** 2 = 9.56
    assert stats.std_dev == pytest.approx(9.56**0.5)


def test_histograms_hold_every_value_once() -> None:
    standard, quantiles = parsed_back(statistics()).features[0].num_stats.histograms
    assert (standard.type, quantiles.type) == (standard.STANDARD, standard.QUANTILES)
    for histogram in (standard, quantiles):
        assert sum(b.sample_count for b in histogram.buckets) == pytest.approx(10)
        assert (histogram.buckets[0].low_value, histogram.buckets[-1].high_value) == (0.0, 10.0)
        assert all(b.low_value <= b.high_value for b in histogram.buckets)
    assert len(quantiles.buckets) == 20


def test_the_exact_histogram_is_used_where_there_is_one() -> None:
    given = statistics()
    edges, counts = np.unique(VALUES[:10], return_counts=True)
    given.numbers["numeric"]["price"]["histogram"] = {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }
    stats = parsed_back(given).features[0].num_stats
    assert stats.num_zeros == 2
    # Widths of 1 from 0 to 10, the last one closed: 10 falls into [9, 10].
    assert [b.sample_count for b in stats.histograms[0].buckets] == [2, 1, 1, 1, 1, 1, 1, 1, 0, 1]


def test_text_numbers_by_hand() -> None:
    site = parsed_back(statistics()).features[1]
    assert (site.path.step, site.type) == (["site"], site.STRING)
    stats = site.string_stats
    assert (stats.common_stats.num_non_missing, stats.common_stats.num_missing) == (9, 3)
    assert stats.unique == 10  # distinct before the vocabulary's limits
    assert [(v.value, v.frequency) for v in stats.top_values] == [
        ("longer", 5),
        ("b", 3),
        ("\ufffd", 1),
    ]
    assert [(b.low_rank, b.label, b.sample_count) for b in stats.rank_histogram.buckets] == [
        (0, "longer", 5),
        (1, "b", 3),
        (2, "\ufffd", 1),
    ]
    assert stats.avg_length == pytest.approx((3 * 1 + 5 * 6 + 1 * 1) / 9)


def test_many_values_are_cut_to_the_most_frequent() -> None:
    counts = {f"v{i}".encode(): i + 1 for i in range(300)}
    stats = parsed_back(statistics(counts=counts)).features[1].string_stats
    assert [v.frequency for v in stats.top_values] == list(range(300, 280, -1))
    assert [b.sample_count for b in stats.rank_histogram.buckets] == list(range(300, 200, -1))


def test_features_without_a_value() -> None:
    dataset = parsed_back(statistics(np.full(12, np.nan, np.float32), {}))
    price, site = dataset.features
    assert (price.num_stats.common_stats.num_missing, len(price.num_stats.histograms)) == (12, 0)
    assert (site.string_stats.common_stats.num_missing, len(site.string_stats.top_values)) == (3, 0)


def test_a_constant_feature() -> None:
    stats = parsed_back(statistics(np.full(12, 2.5, np.float32))).features[0].num_stats
    assert sum(b.sample_count for b in stats.histograms[0].buckets) == 12


def test_from_saved_statistics_and_deterministic(tmp_path: Path) -> None:
    given = statistics(counts={"é\n".encode(): 2, b'"quoted", text': 1})
    given.save(tmp_path)
    again = to_proto(FeatureStatistics.load(tmp_path))
    assert again == to_proto(given)
    text = text_format.MessageToString(again, as_utf8=True)
    assert text_format.Parse(text, statistics_pb2.DatasetFeatureStatisticsList()) == again
