"""Real rows: every encoded row of the sample sets against an independent computation with pandas.

Rows are matched by a number that the test adds as a carried column, so each one is compared.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import SPLITS, DataDirectory
from pipeline.records.packed import RowLayout, read_packed
from pipeline.schema import FeatureSchema
from pipeline.statistics.feature_statistics import FeatureStatistics

SAMPLES = os.environ.get("CLICKPARITY_SAMPLE_DATA", "")
pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="CLICKPARITY_SAMPLE_DATA must name the folder of sample data"
)
NUMBER = "row_number"


def with_numbers(schema: FeatureSchema) -> FeatureSchema:
    raw = schema.model_dump()
    raw["carry"] = [*schema.carry, NUMBER]
    if raw["source"]["kind"] == "csv" and raw["source"]["columns"]:
        raw["source"]["columns"] = [*raw["source"]["columns"], NUMBER]
    return FeatureSchema.model_validate(raw)


def encoded_rows(data: DataDirectory) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(all rows in the order of their numbers, the split of each)."""
    layout = RowLayout.of(data.spec)
    parts, split = [], []
    for i, name in enumerate(SPLITS):
        rows = read_packed(sorted(str(f) for f in (data.path / name).glob("part-*")), layout)
        parts.append(rows)
        split += [i] * len(rows)
    rows = layout.unpack_numpy(np.concatenate(parts))
    order = np.lexsort((-rows["label"], rows["carry"][:, -1]))
    return {k: v[order] for k, v in rows.items()}, np.array(split)[order]


def known_ids(train: pd.Series, min_count: int, buckets: int = 1) -> dict[str, int]:
    """Value -> id: most frequent first, ties in byte order."""
    counts = train[train != ""].value_counts()
    ranked = sorted(((-n, v.encode()) for v, n in counts.items() if n >= min_count))
    return {v.decode(): 1 + buckets + i for i, (_, v) in enumerate(ranked)}


def ids_of(values: pd.Series, known: dict[str, int], buckets: int = 1) -> np.ndarray:
    unseen = tf.strings.to_hash_bucket_fast(values.tolist(), 2**63 - 1).numpy() % buckets + 1
    found = values.map(known).to_numpy(dtype=float, na_value=-1)
    return np.where(values == "", 0, np.where(found < 0, unseen, found)).astype(np.int32)


def prepare(values: pd.Series, log1p: bool) -> np.ndarray:
    x = pd.to_numeric(values, errors="coerce").to_numpy(np.float32).astype(np.float64)
    x = np.where(np.isfinite(x), x, 0.0)
    return np.sign(x) * np.log1p(np.abs(x)) if log1p else x


def check(
    data: DataDirectory, frame: pd.DataFrame, label: str, rows: dict[str, Any], split: Any
) -> None:
    """Every id and number of a log of single clicks against pandas; `frame` in input order."""
    schema, spec = data.schema, data.spec
    assert rows["carry"][:, -1].tolist() == list(range(len(frame)))
    assert rows["label"].tolist() == frame[label].astype(float).tolist()
    train = frame[split == 0]
    by_name = {f.name: f for f in schema.features}
    vocabularies = FeatureStatistics.load(data.path / "statistics").vocabularies
    for i, column in enumerate(spec.categorical):
        feature = by_name.get(column.name)
        if feature is None:  # a part of the time
            name, part = column.name.rsplit("_", 1)
            text = frame[by_name[name].column].str.slice(0, 19)
            form = by_name[name].format
            times = pd.to_datetime(text, format="%Y-%m-%d %H:%M:%S" if form == "iso" else form)
            parts = {"hour": times.dt.hour + 1, "weekday": times.dt.weekday + 1}
            assert rows["ids"][:, i].tolist() == parts[part].tolist(), column.name
            continue
        known = known_ids(train[feature.column], feature.min_count)
        assert vocabularies[column.name].values.to_pylist() == [v.encode() for v in known]
        counts = train[feature.column].value_counts()
        found = vocabularies[column.name].counts.tolist()
        assert found == [int(counts[v]) for v in known], column.name
        assert column.vocab_size == 2 + len(known)
        ids = ids_of(frame[feature.column], known)
        assert rows["ids"][:, i].tolist() == ids.tolist(), column.name
    for i, name in enumerate(spec.numeric):
        feature = by_name[name]
        x = prepare(frame[feature.column], feature.log1p)
        if feature.scale == "z_score":
            x = (x - x[split == 0].mean()) / (x[split == 0].std() or 1.0)
        assert rows["numeric"][:, i] == pytest.approx(x.astype(np.float32), rel=1e-6, abs=1e-7), (
            name
        )


def run(schema: FeatureSchema, path: Path, tmp_path: Path, rows: int) -> Any:
    data = preprocess(with_numbers(schema), [str(path)], tmp_path / "data")
    assert data.summary["input_rows"] == data.summary["sum_of_parts"] == rows
    assert data.summary["rejected_rows"] == 0
    return data, *encoded_rows(data)


@pytest.mark.parametrize(
    "file, count",
    [
        ("criteo_terabyte_day0_10k/day_0.part.txt", 10_000),
        ("criteo_kaggle_samples/union_dedup.tsv.gz", 12_999),
    ],
)
def test_criteo(tmp_path: Path, file: str, count: int) -> None:
    schema = FeatureSchema.load("criteo")
    raw = (Path(SAMPLES) / file).read_bytes()
    text = (gzip.decompress(raw) if file.endswith(".gz") else raw).decode()
    lines = [f"{line}\t{i}" for i, line in enumerate(text.rstrip("\n").split("\n"))]
    path = tmp_path / "numbered.tsv"
    path.write_text("\n".join(lines))
    data, rows, split = run(schema, path, tmp_path, count)
    columns = schema.source.columns  # type: ignore[union-attr]
    frame = pd.DataFrame([line.split("\t")[:-1] for line in lines], columns=list(columns))
    check(data, frame, "label", rows, split)


def numbered_csv(source: Path, goal: Path) -> pd.DataFrame:
    frame = pd.read_csv(source, dtype=str, keep_default_na=False)
    frame.assign(**{NUMBER: range(len(frame))}).to_csv(goal, index=False)
    return frame


def test_avazu(tmp_path: Path) -> None:
    path = tmp_path / "numbered.csv"
    frame = numbered_csv(Path(SAMPLES) / "avazu_samples" / "union_dedup.csv.gz", path)
    data, rows, split = run(FeatureSchema.load("avazu"), path, tmp_path, len(frame))
    check(data, frame, "click", rows, split)


@pytest.mark.parametrize("campaign", ["random_all", "bts_men"])
def test_open_bandit(tmp_path: Path, campaign: str) -> None:
    path = tmp_path / "numbered.csv"
    frame = numbered_csv(Path(SAMPLES) / "open_bandit" / f"{campaign}.csv.gz", path)
    data, rows, split = run(FeatureSchema.load("open_bandit"), path, tmp_path, len(frame))
    check(data, frame, "click", rows, split)
    propensity = frame.propensity_score.astype(np.float32)
    assert rows["carry"][:, 0].tolist() == propensity.tolist()
    affinities = [c for c in frame.columns if c.startswith("user-item_affinity_")]
    assert len(data.spec.numeric) == len(affinities) > 30


def test_several_files_of_one_campaign_shape(tmp_path: Path) -> None:
    folder = Path(SAMPLES) / "open_bandit"
    paths = [str(folder / f"{policy}_all.csv.gz") for policy in ("bts", "random")]
    data = preprocess(FeatureSchema.load("open_bandit"), paths, tmp_path / "data")
    assert data.summary["input_rows"] == data.summary["sum_of_parts"] == 20_000
    assert data.summary["input_files"] == 2


def test_upworthy(tmp_path: Path) -> None:
    source = Path(SAMPLES) / "upworthy_exploratory" / "upworthy_clean.parquet"
    frame = pd.read_parquet(source).reset_index(drop=True)
    path = tmp_path / "numbered.parquet"
    frame.assign(**{NUMBER: range(len(frame))}).to_parquet(path, index=False)
    schema = FeatureSchema.load("upworthy")
    _, rows, split = run(schema, path, tmp_path, len(frame))
    # Counted clicks become at most two weighted rows; together they are every impression.
    number = rows["carry"][:, -1].astype(int)
    expected = np.where(
        rows["label"] > 0, frame.clicks[number], (frame.impressions - frame.clicks)[number]
    )
    assert rows["weight"].tolist() == expected.tolist()
    assert rows["weight"].astype(np.float64).sum() == frame.impressions.sum()
    assert set(number) == set(range(len(frame)))
    # A test never straddles two splits.
    of_row = np.zeros(len(frame), int)
    of_row[number] = split
    assert frame.assign(split=of_row).groupby("clickability_test_id")["split"].nunique().max() == 1
    train = frame[of_row == 0]
    text = {c: frame[c].fillna("") for c in ("headline", "lede", "eyecatcher_id")}
    known = known_ids(train.eyecatcher_id.fillna(""), 2)
    assert rows["ids"][:, 0].tolist() == ids_of(text["eyecatcher_id"], known)[number].tolist()
    for feature in schema.features[:2]:
        words = text[feature.column].str.split(" ").map(lambda found: [w for w in found if w])
        seen = words[of_row == 0].explode().dropna()
        known = known_ids(seen, feature.min_count)
        width = feature.max_length
        ids = [[known.get(w, 1) for w in found[:width]] for found in words]
        padded = np.array([found + [0] * (width - len(found)) for found in ids])
        assert (rows[f"sequence/{feature.name}"] == padded[number]).all(), feature.name
        assert len(known) <= feature.max_vocab_size
