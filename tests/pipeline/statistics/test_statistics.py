"""Statistics: merging is exact, moments and quantiles are right, vocabularies are in their order."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import ConfigError
from pipeline.schema import FeatureSchema, NumericFeature
from pipeline.statistics.feature_statistics import (
    FeatureStatistics,
    Histogram,
    NumericStatistics,
    PartialStatistics,
    value_counts,
)
from pipeline.statistics.vocabulary import (
    Vocabulary,
    merge_counts,
    partition_of,
    read_vocabulary,
    select_vocabulary,
    write_vocabulary,
)

LOG = NumericFeature(name="x", log1p=True, clip=(-50.0, 1e6), missing_value=-1.0)
PLAIN = NumericFeature(name="x")
floats = hnp.arrays(
    np.float32,
    st.integers(0, 40),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


def as_dict(statistics: NumericStatistics) -> dict[str, object]:
    raw = {**vars(statistics)}
    histogram = raw.pop("histogram")
    return {**raw, "bins": histogram.bins.tolist(), "counts": histogram.counts.tolist()}


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(floats, max_size=6), seed=st.integers(0, 99))
def test_merging_does_not_depend_on_order_or_grouping(parts: list[np.ndarray], seed: int) -> None:
    of_parts = [NumericStatistics.of(part, LOG) for part in parts]
    whole = NumericStatistics.merge(of_parts)
    order = np.random.default_rng(seed).permutation(len(parts))
    cut = int(np.random.default_rng(seed).integers(0, len(parts) + 1))
    shuffled = [of_parts[i] for i in order]
    nested = [NumericStatistics.merge(shuffled[:cut]), NumericStatistics.merge(shuffled[cut:])]
    assert as_dict(NumericStatistics.merge(nested)) == as_dict(whole)


def test_partial_statistics_merge_every_field() -> None:
    def part(seed: int) -> PartialStatistics:
        made = PartialStatistics(input_rows=seed, rejected_rows=1)
        made.reasons["r"] = seed
        made.split_rows["train"] = 10 * seed
        made.hours = {1: (seed, 1), seed + 1: (2, 0)}
        made.numeric["x"] = NumericStatistics.of(np.array([seed], np.float32), PLAIN)
        made.present["c"], made.missing["c"] = seed, 1
        return made

    parts = [part(i) for i in (1, 2, 3)]
    merged = PartialStatistics.merge(parts)
    assert merged.input_rows == 6
    assert merged.rejected_rows == 3
    assert merged.reasons == {"r": 6}
    assert merged.split_rows == {"train": 60}
    assert merged.hours == {1: (6, 3), 2: (2, 0), 3: (2, 0), 4: (2, 0)}
    assert merged.present == {"c": 6}
    assert merged.missing == {"c": 3}
    assert merged.numeric["x"].count == 3
    assert merged.numeric["x"].maximum == 3
    assert PartialStatistics.merge(parts[::-1]).hours == merged.hours


def test_golden_moments_and_quantiles() -> None:
    values = np.array([1, 2, 4, np.nan, np.inf, -np.inf], np.float32)
    summary = NumericStatistics.of(values, NumericFeature(name="x", missing_value=1)).summarise(2)
    assert summary["count"] == 3
    assert summary["missing"] == 3
    assert (summary["min"], summary["max"]) == (1, 4)
    assert summary["mean"] == pytest.approx(7 / 3, rel=1e-15)
    assert summary["standard_deviation"] == pytest.approx((14 / 9) ** 0.5, rel=1e-15)
    # As the model sees them: 1, 2, 4, 1, 1, 1
    assert summary["prepared_mean"] == pytest.approx(10 / 6, rel=1e-15)
    assert summary["prepared_standard_deviation"] == pytest.approx((44 / 36) ** 0.5, rel=1e-15)
    assert summary["quantiles"][10] == 2
    assert summary["bucket_boundaries"] == [2]


@settings(max_examples=40, deadline=None)
@given(
    values=hnp.arrays(
        np.float32, st.integers(1, 200), elements=st.floats(-1e6, 1e6, width=32) | st.just(np.nan)
    ),
    parts=st.integers(1, 4),
)
def test_moments_equal_numpys(values: np.ndarray, parts: int) -> None:
    merged = NumericStatistics.merge(
        NumericStatistics.of(p, LOG) for p in np.array_split(values, parts)
    )
    summary = merged.summarise(None)
    kept = values[~np.isnan(values)].astype(np.float64)
    assert summary["count"] == len(kept)
    if len(kept):
        scale = max(1.0, np.abs(kept).max())
        assert summary["mean"] == pytest.approx(kept.mean(), abs=1e-12 * scale)
        assert summary["standard_deviation"] == pytest.approx(kept.std(), abs=1e-9 * scale)
    filled = np.clip(np.where(np.isnan(values), -1.0, values.astype(np.float64)), -50, 1e6)
    prepared = np.sign(filled) * np.log1p(np.abs(filled))
    assert summary["prepared_mean"] == pytest.approx(prepared.mean(), abs=1e-12)
    assert summary["prepared_standard_deviation"] == pytest.approx(prepared.std(), abs=1e-7)


def test_a_constant_column_has_no_spread_at_all() -> None:
    parts = [NumericStatistics.of(np.full(n, 0.1, np.float32), PLAIN) for n in (3, 1000, 7)]
    summary = NumericStatistics.merge(parts).summarise(None)
    assert summary["standard_deviation"] == 0
    assert summary["prepared_standard_deviation"] == 0
    assert summary["mean"] == float(np.float32(0.1))


def test_a_small_spread_far_from_zero_is_not_lost() -> None:
    values = (1e6 + np.arange(8)).astype(np.float32)
    summary = NumericStatistics.of(values, PLAIN).summarise(None)
    assert summary["standard_deviation"] == pytest.approx(np.arange(8).std(), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(
        np.float32,
        st.integers(1, 300),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_quantiles_are_within_their_bin(values: np.ndarray) -> None:
    q = np.array([0, 0.1, 0.5, 0.9, 1])
    got = Histogram.merge([Histogram.of(values[::2]), Histogram.of(values[1::2])]).quantile(q)
    exact = np.quantile(values.astype(np.float64), q, method="inverted_cdf")
    assert (np.abs(got) <= np.abs(exact)).all()
    assert (
        np.abs(got - exact) == pytest.approx(0, abs=1e-42)
        or (np.abs(got - exact) <= np.abs(exact) * 2.0**-11 + 1e-41).all()
    )


def test_small_whole_numbers_are_their_own_quantiles() -> None:
    values = np.arange(-2048, 2049).astype(np.float32)
    q = np.linspace(0, 1, 4097)
    exact = np.quantile(values, q, method="inverted_cdf")
    assert Histogram.of(values).quantile(q).tolist() == exact.tolist()


# ------------------------------------------------------------------------------------- vocabularies

texts = st.lists(st.binary(min_size=0, max_size=3), max_size=60)


def counted(values: list[bytes]) -> pa.Table:
    return value_counts(pa.array(values, pa.binary()))


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(texts, max_size=4), min_count=st.integers(1, 3), limit=st.integers(0, 8))
def test_vocabulary_is_most_frequent_first_ties_in_byte_order(
    parts: list[list[bytes]], min_count: int, limit: int
) -> None:
    merged = merge_counts(counted(part) for part in parts)
    vocabulary = select_vocabulary(merged, min_count=min_count, max_vocab_size=limit)
    found = collections.Counter(v for part in parts for v in part if v)
    ranked = sorted(((-n, v) for v, n in found.items() if n >= min_count))[:limit]
    assert vocabulary.values.to_pylist() == [v for _, v in ranked]
    assert vocabulary.counts.tolist() == [-n for n, _ in ranked]
    assert vocabulary.num_distinct == len(found)


@settings(max_examples=60, deadline=None)
@given(values=texts, base=st.lists(st.binary(min_size=1, max_size=2), unique=True, max_size=6))
def test_a_base_vocabulary_keeps_its_ids(values: list[bytes], base: list[bytes]) -> None:
    table = merge_counts([counted(values)])
    made = select_vocabulary(
        table, min_count=2, max_vocab_size=8, base=pa.array(base, pa.binary())
    ).values.to_pylist()
    assert made[: len(base)] == base
    fresh = select_vocabulary(table, min_count=2, max_vocab_size=1000).values.to_pylist()
    assert made[len(base) :] == [v for v in fresh if v not in base][: 8 - len(base)]


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.binary(min_size=1, max_size=9), min_size=1), number=st.integers(1, 9))
def test_partition_depends_on_the_value_alone(values: list[bytes], number: int) -> None:
    together = partition_of(pa.array(values, pa.binary()), number)
    alone = [int(partition_of(pa.array([v], pa.binary()), number)[0]) for v in values]
    sliced = partition_of(pa.array([b"zz", *values], pa.binary()).slice(1), number)
    assert together.tolist() == alone == sliced.tolist()
    assert ((together >= 0) & (together < number)).all()


@pytest.mark.parametrize("form", ["{:08x}", "{}"])
def test_partitions_share_typical_ids_evenly(form: str) -> None:
    ids = np.random.default_rng(0).integers(0, 2**32, 20_000)
    place = partition_of(pa.array([form.format(i).encode() for i in ids], pa.binary()), 8)
    assert np.bincount(place, minlength=8).min() > 20_000 / 8 * 0.7


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=12))
def test_vocabulary_files_keep_any_text(values: list[str]) -> None:
    import tempfile

    encoded = [v.encode("utf-8", "replace") for v in values]
    vocabulary = Vocabulary(pa.array(encoded, pa.binary()), np.arange(len(values)), 99)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "v.csv"
        write_vocabulary(vocabulary, path)
        again = read_vocabulary(path, 99)
    assert again.values.to_pylist() == encoded
    assert again.counts.tolist() == vocabulary.counts.tolist()


def test_a_value_may_be_a_megabyte_long(tmp_path: Path) -> None:
    values = pa.array([b"x" * (3 << 20), b"y"], pa.binary())
    write_vocabulary(Vocabulary(values, np.array([2, 1]), 2), tmp_path / "v.csv")
    assert read_vocabulary(tmp_path / "v.csv", 2).values.equals(values)


# ------------------------------------------------------------------------------------- together


def test_statistics_survive_saving_and_name_what_people_ask(tmp_path: Path) -> None:
    schema = FeatureSchema.model_validate(
        {
            "name": "s",
            "label": "y",
            "features": [
                {"name": "x", "kind": "numeric", "quantile_buckets": 4},
                {"name": "c", "kind": "categorical", "num_oov_buckets": 3},
            ],
        }
    )
    part = PartialStatistics(input_rows=9)
    part.split_rows["train"] = 5
    part.label_weight, part.click_weight = part.label_weight + 4, part.click_weight + 1
    part.numeric["x"] = NumericStatistics.of(np.array([3, 1, np.nan], np.float32), PLAIN)
    part.present["c"], part.missing["c"] = 2, 3
    part.hours = {7: (5, 1)}
    vocabulary = select_vocabulary(counted([b"b", b"a", b"b"]), min_count=1, max_vocab_size=9)
    made = FeatureStatistics.assemble(schema, part, {"c": vocabulary})
    made.save(tmp_path)
    again = FeatureStatistics.load(tmp_path)
    assert again.numbers == made.numbers
    assert again.vocabularies["c"].values.to_pylist() == [b"b", b"a"]
    assert again.numbers["label_rate"] == 0.25
    assert again.numbers["label_rate_by_hour"] == {"7": [5, 1]}
    assert again.numbers["text"]["c"]["top"] == [["b", 2], ["a", 1]]
    assert again.numbers["text"]["c"]["num_oov_buckets"] == 3
    assert pd.read_csv(tmp_path / "vocabulary" / "c.csv")["count"].tolist() == [2, 1]


def test_no_statistics_there_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Point at the `statistics` directory"):
        FeatureStatistics.load(tmp_path)
