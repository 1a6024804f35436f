"""Every kind of feature through the whole job, row by row against pandas and NumPy."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import SPLITS, DataDirectory
from pipeline.records.dataset import evaluation_batches
from pipeline.schema import FeatureSchema

ROWS = 1200
CONFIG = PreprocessConfig(block_bytes=16_384, shard_bytes=1 << 14, rows_per_record=64)
SCHEMA: dict[str, Any] = {
    "name": "every_kind",
    "source": {"kind": "csv"},
    "label": {"clicks": "clicks", "impressions": "shown"},
    "weight": "w",
    "features": [
        {"name": "log", "kind": "numeric", "column": "n", "log1p": True, "missing_indicator": True},
        {"name": "clipped", "kind": "numeric", "column": "m", "clip": [-1.0, 2.0]},
        {"name": "filled", "kind": "numeric", "column": "m", "scale": "none", "missing_value": 7},
        {"name": "bucket", "kind": "numeric", "column": "small", "quantile_buckets": 4},
        {
            "name": "limited",
            "kind": "categorical",
            "column": "c",
            "min_count": 4,
            "max_vocab_size": 9,
            "num_oov_buckets": 5,
        },
        {
            "name": "hashed",
            "kind": "categorical",
            "column": "d",
            "max_vocab_size": 0,
            "num_oov_buckets": 50,
        },
        {"name": "pair", "kind": "cross", "of": ["c", "d"], "min_count": 3, "num_oov_buckets": 3},
        {
            "name": "newest",
            "kind": "sequence",
            "column": "s",
            "separator": "|",
            "max_length": 3,
            "max_vocab_size": 8,
        },
        {
            "name": "oldest",
            "kind": "sequence",
            "column": "s",
            "separator": "|",
            "max_length": 2,
            "keep": "first",
        },
        {
            "name": "shared",
            "kind": "sequence",
            "column": "r",
            "separator": " ",
            "max_length": 4,
            "vocabulary_of": "limited",
        },
        {
            "name": "epoch",
            "kind": "datetime",
            "format": "epoch_s",
            "parts": ["hour", "weekday", "day", "month"],
        },
        {"name": "iso", "kind": "datetime"},
        {"name": "short", "kind": "datetime", "format": "%y%m%d%H"},
        {
            "name": "picture",
            "kind": "image",
            "height": 3,
            "width": 2,
            "channels": 1,
            "is_path": True,
        },
    ],
    "split": {"by": "column", "column": "part"},
    "carry": ["number"],
}


def log_of(folder: Path) -> pd.DataFrame:
    """Rows as texts; every column misses some values where it may."""
    rng = np.random.default_rng(7)

    def some(values: Any, missing: float = 0.1) -> list[str]:
        return ["" if rng.random() < missing else str(v) for v in values]

    pictures = []
    for i in range(3):
        path = folder / f"{i}.png"
        path.write_bytes(tf.io.encode_png(np.full((3, 2, 1), 50 * i, np.uint8)).numpy())
        pictures.append(str(path))
    pool = [f"v{int(n)}" for n in rng.zipf(1.4, 4000).clip(0, 60)]
    times = [
        datetime.datetime(2014, 10, 20, tzinfo=datetime.UTC) + datetime.timedelta(seconds=int(s))
        for s in rng.integers(0, 90 * 86_400, ROWS)
    ]
    shown = rng.integers(1, 6, ROWS)
    return pd.DataFrame(
        {
            "number": np.arange(ROWS).astype(str),
            "clicks": [str(rng.integers(0, n + 1)) for n in shown],
            "shown": shown.astype(str),
            "w": rng.choice(["0.5", "1", "2"], ROWS),
            "n": some(rng.lognormal(1, 2, ROWS).round(4)),
            "m": some(rng.normal(0, 2, ROWS).round(4)),
            "small": some(rng.integers(0, 30, ROWS)),
            "c": some(rng.choice(pool, ROWS)),
            "d": some([f"d{n}" for n in rng.integers(0, 12, ROWS)]),
            "s": some(["|".join(rng.choice(pool, n)) for n in rng.integers(1, 7, ROWS)]),
            "r": some([" ".join(rng.choice(pool, n)) for n in rng.integers(1, 7, ROWS)]),
            "epoch": some([int(t.timestamp()) for t in times]),
            "iso": some([t.strftime("%Y-%m-%d %H:%M:%S") for t in times]),
            "short": some([t.strftime("%y%m%d%H") for t in times]),
            "picture": some(rng.choice(pictures, ROWS)),
            "part": rng.choice(["train", "train", "train", "validation", "test"], ROWS),
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, FeatureSchema, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    frame = log_of(folder)
    frame.to_csv(folder / "log.csv", index=False)
    return frame, FeatureSchema.model_validate(SCHEMA), folder / "log.csv"


@pytest.fixture(scope="module", params=["packed", "examples"])
def encoded(
    request: pytest.FixtureRequest,
    made: tuple[pd.DataFrame, FeatureSchema, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[pd.DataFrame, DataDirectory, dict[str, np.ndarray]]:
    """(log in the order of the encoded rows, its data directory, encoded rows) in each layout."""
    frame, schema, path = made
    config = CONFIG.model_copy(update={"layout": request.param})
    data = preprocess(schema, [str(path)], tmp_path_factory.mktemp("out") / "data", config)
    assert data.summary["input_rows"] == ROWS == data.summary["sum_of_parts"]
    assert data.summary["rejected_rows"] == 0
    parts, split = [], []
    for name in SPLITS:
        for batch in evaluation_batches(data, name, 100):  # what training and evaluation read
            parts.append({key: value.numpy() for key, value in batch.items()})
            split += [name] * len(parts[-1]["label"])
    rows = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
    number = rows["carry"][:, 0].astype(int)
    assert frame.part[number].tolist() == split
    return frame.loc[number].reset_index(drop=True), data, rows


def column_of(data: DataDirectory, rows: dict[str, np.ndarray], name: str) -> list[int]:
    place = [c.name for c in data.spec.categorical].index(name)
    return [int(i) for i in rows["ids"][:, place]]


def vocabulary(values: pd.Series, min_count: int, most: int, buckets: int) -> dict[str, int]:
    counts = values[values != ""].value_counts()
    ranked = sorted((-n, v.encode()) for v, n in counts.items() if n >= min_count)[:most]
    return {v.decode(): 1 + buckets + i for i, (_, v) in enumerate(ranked)}


def shared_vocabulary(train: pd.DataFrame) -> dict[str, int]:
    """Of `limited` and `shared`: counted over both columns."""
    return vocabulary(pd.concat([train.c, train.r.str.split(" ").explode()]), 4, 9, 5)


def id_of(value: str, known: dict[str, int], buckets: int) -> int:
    if not value:
        return 0
    bucket = int(tf.strings.to_hash_bucket_fast(value, 2**63 - 1)) % buckets
    return known.get(value, 1 + bucket)


def test_counted_clicks_and_weights(encoded: Any, made: Any) -> None:
    frame, _, rows = encoded
    clicks, shown = frame.clicks.astype(int), frame.shown.astype(int)
    expected = np.where(rows["label"] > 0, clicks, shown - clicks) * frame.w.astype(float)
    assert rows["weight"].tolist() == expected.tolist()
    whole = made[0]
    total = (whole.shown.astype(int) * whole.w.astype(float)).sum()
    assert rows["weight"].astype(float).sum() == total
    assert len(frame) == sum(
        (int(c) > 0) + (int(n) > int(c)) for c, n in zip(whole.clicks, whole.shown, strict=True)
    )


def test_numbers(encoded: Any, made: Any) -> None:
    frame, data, rows = encoded
    train = made[0][made[0].part == "train"]

    def prepared(log: pd.DataFrame, name: str) -> np.ndarray:
        column = {"log": "n"}.get(name, "m")
        x = pd.to_numeric(log[column]).to_numpy(np.float32).astype(np.float64)
        if name == "log":
            return np.log1p(np.nan_to_num(x))
        return np.nan_to_num(x, nan=7.0) if name == "filled" else np.nan_to_num(x).clip(-1, 2)

    assert data.spec.numeric == ("log", "clipped", "filled", "log_missing")
    for i, name in enumerate(("log", "clipped", "filled")):
        x, seen = prepared(frame, name), prepared(train, name)
        if name != "filled":
            x = (x - seen.mean()) / seen.std()
        assert rows["numeric"][:, i] == pytest.approx(x.astype(np.float32), rel=1e-6, abs=1e-6), (
            name
        )
    assert rows["numeric"][:, 3].tolist() == (frame.n == "").astype(float).tolist()


def test_quantile_buckets(encoded: Any, made: Any) -> None:
    frame, data, rows = encoded
    seen = pd.to_numeric(made[0].small[made[0].part == "train"]).dropna().to_numpy()
    edges = np.unique(np.quantile(seen, [0.25, 0.5, 0.75], method="inverted_cdf"))
    assert len(edges) == 3
    x = pd.to_numeric(frame.small).to_numpy()
    expected = np.where(np.isnan(x), 0, 1 + np.searchsorted(edges, x, side="right"))
    assert column_of(data, rows, "bucket") == expected.tolist()


def test_categories_and_crosses(encoded: Any, made: Any) -> None:
    frame, data, rows = encoded
    train = made[0][made[0].part == "train"]
    known = shared_vocabulary(train)
    assert len(known) == 9
    assert set(known) != set(vocabulary(train.c, 1, 10**6, 5)), "some values are rare or too many"
    assert column_of(data, rows, "limited") == [id_of(v, known, 5) for v in frame.c]
    assert column_of(data, rows, "hashed") == [id_of(v, {}, 50) for v in frame.d]

    def crossed(log: pd.DataFrame) -> pd.Series:
        pairs = zip(log.c, log.d, strict=True)
        return pd.Series([f"{c}\x1f{d}" if c and d else "" for c, d in pairs])

    known = vocabulary(crossed(train), 3, 10**6, 3)
    assert 10 < len(known) < crossed(train).nunique() - 1
    assert column_of(data, rows, "pair") == [id_of(v, known, 3) for v in crossed(frame)]


def test_sequences(encoded: Any, made: Any) -> None:
    frame, _, rows = encoded
    train = made[0][made[0].part == "train"]

    def padded(
        values: pd.Series,
        separator: str,
        known: dict[str, int],
        buckets: int,
        keep: slice,
        width: int,
    ) -> list[list[int]]:
        ids = []
        for value in values:
            kept = [v for v in value.split(separator) if v][keep]
            ids.append([id_of(v, known, buckets) for v in kept] + [0] * (width - len(kept)))
        return ids

    every = train.s.str.split("|").explode()
    known = vocabulary(every, 1, 8, 1)
    expected = padded(frame.s, "|", known, 1, slice(-3, None), 3)
    assert rows["sequence/newest"].tolist() == expected
    known = vocabulary(every, 1, 10**6, 1)
    assert rows["sequence/oldest"].tolist() == padded(frame.s, "|", known, 1, slice(2), 2)
    known = shared_vocabulary(train)
    assert rows["sequence/shared"].tolist() == padded(frame.r, " ", known, 5, slice(-4, None), 4)


@pytest.mark.parametrize("name", ["epoch", "iso", "short"])
def test_parts_of_the_time(encoded: Any, name: str) -> None:
    frame, data, rows = encoded
    written = frame[name].replace("", None)
    if name == "epoch":
        times = pd.to_datetime(pd.to_numeric(written), unit="s")
    else:
        form = "%Y-%m-%d %H:%M:%S" if name == "iso" else "%y%m%d%H"
        times = pd.to_datetime(written, format=form)
    parts = {"hour": times.dt.hour + 1, "weekday": times.dt.weekday + 1}
    if name == "epoch":
        parts |= {"day": times.dt.day, "month": times.dt.month}
    for part, expected in parts.items():
        assert column_of(data, rows, f"{name}_{part}") == expected.fillna(0).astype(int).tolist()


def test_images_by_path(encoded: Any) -> None:
    frame, _, rows = encoded
    for path, pixels in zip(frame.picture, rows["image/picture"], strict=True):
        value = 50 * int(Path(path).stem) if path else 0
        assert (pixels == value).all()
    assert rows["image/picture"].shape[1:] == (3, 2, 1)
