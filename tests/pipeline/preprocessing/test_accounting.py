"""The sums that must agree before a data directory is finished; each check by itself."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from pipeline.errors import ClickparityError
from pipeline.input_listing import InputListing
from pipeline.preprocessing.accounting import summarise
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.encode_pass import ShardResult
from pipeline.preprocessing.row_fates import RowFates
from pipeline.statistics.feature_statistics import PartialStatistics

# 20 rows read: 11 train (two of them give two examples), 3 validation, 2 test, 1 sampled away, 3 rejected
FATES = RowFates((11, 3, 2), 1, (13, 3, 2))
PARTIAL = PartialStatistics(
    input_rows=20, rejected_rows=3, reasons=Counter({"b": 1, "c": 1, "a": 1})
)
SHARDS = [
    ShardResult(0, 1, 6, 6.0, 1.5),
    ShardResult(0, 0, 7, 10.0, 2.5),
    ShardResult(1, 0, 3, 3.0, 0.0),
    ShardResult(2, 0, 2, 0.0, 0.0),
]


def summary(partial=PARTIAL, fates=FATES, shards=SHARDS) -> dict:
    return summarise(InputListing(()), partial, fates, shards, PreprocessConfig(), "f", 2)


def test_sums_that_agree():
    result = summary()
    assert result["input_rows"] == result["sum_of_parts"] == 20
    assert result["splits"]["train"] == {
        "input_rows": 11,
        "rows": 13,
        "shards": 2,
        "weight": 16.0,
        "label_rate": 0.25,
    }
    assert result["splits"]["test"]["label_rate"] == 0.0  # no weight: nothing to divide by
    assert result["dropped_by_sampling"] == 1
    assert list(result["reject_reasons"].items()) == [("a", 1), ("b", 1), ("c", 1)]


@pytest.mark.parametrize(
    "fates",
    [
        dataclasses.replace(FATES, rows=(10, 3, 2)),
        dataclasses.replace(FATES, rows=(11, 4, 2)),
        dataclasses.replace(FATES, dropped=0),
    ],
)
def test_a_row_that_is_nowhere_or_in_two_places_stops_the_job(fates):
    accounted = sum(fates.rows) + fates.dropped + 3
    with pytest.raises(ClickparityError, match=f"20 read, {accounted} accounted for") as caught:
        summary(fates=fates)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("change", [{"input_rows": 21}, {"rejected_rows": 2}])
def test_what_the_reader_counted_must_agree_too(change):
    with pytest.raises(ClickparityError, match="every input row must be in exactly one place"):
        summary(partial=dataclasses.replace(PARTIAL, **change))


@pytest.mark.parametrize(
    "shards",
    [
        SHARDS[1:],
        [*SHARDS, ShardResult(2, 1, 1, 1.0, 0.0)],
        [dataclasses.replace(SHARDS[0], split=1), *SHARDS[1:]],  # same total, another split
        [dataclasses.replace(SHARDS[0], rows=5), *SHARDS[1:]],
    ],
)
def test_an_example_that_is_not_in_its_splits_shards_stops_the_job(shards):
    with pytest.raises(ClickparityError, match="every example must be written to a shard, once"):
        summary(shards=shards)
