"""Columns to break metrics down by: each row's value in the words of the raw log."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import DataDirectory
from pipeline.records.dataset import evaluation_batches
from pipeline.records.segments import UNSEEN, check_segments, segment_columns
from pipeline.schema import FeatureSchema

ROWS = 400
SCHEMA = FeatureSchema.model_validate(
    {
        "name": "t",
        "source": {"kind": "csv"},
        "label": "y",
        "features": [
            {"name": "x", "kind": "numeric", "log1p": True, "missing_indicator": True},
            {"name": "z", "kind": "numeric", "scale": "z_score"},
            # three ids stand for what is unseen, before those of the values
            {"name": "c", "kind": "categorical", "min_count": 3, "num_oov_buckets": 3},
            {"name": "h", "kind": "categorical", "max_vocab_size": 0, "num_oov_buckets": 4},
            {"name": "tags", "kind": "sequence", "separator": "|", "max_length": 3},
        ],
        "carry": ["number"],
    }
)


def raw_row(i: int) -> dict[str, str]:
    rare = f"rare{i}" if i % 5 == 0 else f"v{i * i % 23}"
    return {
        "number": str(i),
        "y": str(int(i % 7 == 0)),
        "x": "" if i % 11 == 0 else str(i % 90),
        "z": str(i % 50 - 25),
        "c": "" if i % 13 == 0 else rare,
        "h": f"h{i % 9}",
        "tags": "|".join("abcde"[: i % 6]),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataDirectory:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    rows = [raw_row(i) for i in range(ROWS)]
    path.write_text("\n".join([",".join(rows[0]), *(",".join(r.values()) for r in rows)]) + "\n")
    config = PreprocessConfig(rows_per_record=32)
    return preprocess(SCHEMA, [str(path)], path.parent / "data", config)


def raw_rows(data: DataDirectory, split: str) -> list[dict[str, str]]:
    """The raw rows of a split in file order, by the number that each carries."""
    batches = evaluation_batches(data, split, 64).as_numpy_iterator()
    return [raw_row(int(n)) for batch in batches for n in batch["carry"][:, 0]]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_value_is_named_as_it_was_in_the_log_and_a_rare_one_is_unseen(data, split):
    counts = Counter(row["c"] for row in raw_rows(data, "train"))
    kept = {value for value, count in counts.items() if value and count >= 3}
    assert len(kept) > 5
    rows = raw_rows(data, split)
    expected = [(row["c"] if row["c"] in kept else UNSEEN) if row["c"] else None for row in rows]
    assert {None, UNSEEN} < set(expected)
    assert segment_columns(data, split, ["c"])["c"].tolist() == expected


def test_a_hashed_column_has_no_names(data):
    assert set(segment_columns(data, "train", ["h"])["h"]) == {UNSEEN}


def test_a_sequence_is_named_by_how_many_values_a_row_has(data):
    lengths = [
        str(min(row["tags"].count("|") + bool(row["tags"]), 3)) for row in raw_rows(data, "train")
    ]
    assert segment_columns(data, "train", ["tags"])["tags"].tolist() == lengths


@pytest.mark.parametrize("name", ["x", "z", "number"])
def test_a_number_is_named_by_its_quarter_in_its_own_units(data, name):
    raw = np.array([float(row[name] or "nan") for row in raw_rows(data, "train")])
    found = segment_columns(data, "train", [name])[name]
    assert [value is None for value in found] == np.isnan(raw).tolist()
    texts = sorted({value for value in found if value is not None})
    assert [text[:2] for text in texts] == ["1:", "2:", "3:", "4:"]
    present = np.isfinite(raw)
    for text in texts:
        inside = raw[present][found[present] == text]
        low, high = map(float, text[2:].split(" .. "))
        assert (low, high) == pytest.approx((inside.min(), inside.max()), rel=1e-3, abs=1e-3)
        assert 0.2 < len(inside) / present.sum() < 0.3


def test_what_is_no_column_is_refused_with_the_choices(data):
    check_segments(data, ["x", "z", "c", "h", "tags", "number"])
    with pytest.raises(ConfigError, match=r"feature or a carried column.*'y'.*Choose from: x, "):
        check_segments(data, ["c", "y"])
