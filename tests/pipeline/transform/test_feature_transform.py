"""The transform: numbers by hand, ids by the vocabulary's order, the same bits at every batch size."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.schema import FeatureSchema
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.statistics.vocabulary import Vocabulary
from pipeline.transform.feature_transform import FeatureTransform


def numeric(mean: float = 0.0, deviation: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"prepared_mean": mean, "prepared_standard_deviation": deviation, **more}


def build(
    features: list[dict[str, Any]],
    numbers: dict[str, dict[str, Any]] | None = None,
    vocabularies: dict[str, list[bytes]] | None = None,
) -> FeatureTransform:
    schema = FeatureSchema.model_validate({"name": "t", "label": "y", "features": features})
    made = {
        name: Vocabulary(pa.array(values, pa.binary()), np.ones(len(values), np.int64), len(values))
        for name, values in (vocabularies or {}).items()
    }
    return FeatureTransform(schema, FeatureStatistics({"numeric": numbers or {}, "text": {}}, made))


def encode(
    transform: FeatureTransform,
    numbers: list[list[float]] | None = None,
    texts: list[list[bytes]] | None = None,
) -> dict[str, np.ndarray]:
    rows = len(numbers if numbers is not None else texts or [])
    matrix = np.empty((rows, len(transform.schema.input_texts)), object)
    for i, row in enumerate(texts or []):
        matrix[i, :] = row
    values = np.array(numbers if numbers is not None else np.zeros((rows, 0)), np.float32)
    return transform.encode_numpy(values.reshape(rows, len(transform.schema.input_numbers)), matrix)


def unseen(value: bytes, buckets: int) -> int:
    """The id of a value outside the vocabulary, spelled out."""
    return 1 + int(tf.strings.to_hash_bucket_fast(value, 2**63 - 1)) % buckets


# ------------------------------------------------------------------------------------- numbers


def test_numbers_by_hand() -> None:
    transform = build(
        [
            {"name": "plain", "kind": "numeric", "scale": "none"},
            {"name": "scaled", "kind": "numeric"},
            {"name": "log", "kind": "numeric", "log1p": True, "scale": "none"},
            {"name": "clipped", "kind": "numeric", "clip": [-1, 2], "scale": "none"},
            {
                "name": "filled",
                "kind": "numeric",
                "missing_value": 7,
                "missing_indicator": True,
                "scale": "none",
            },
            {"name": "constant", "kind": "numeric"},
        ],
        {
            "plain": numeric(9, 9),
            "scaled": numeric(2, 4),
            "log": numeric(),
            "clipped": numeric(),
            "filled": numeric(),
            "constant": numeric(5, 0),
        },
    )
    nan, inf = math.nan, math.inf
    got = encode(
        transform,
        [
            [3, 6, math.e - 1, 5, 1, 5],
            [nan, nan, -(math.e - 1), -5, nan, 5],
            [inf, 2, 0, 0.5, -inf, 6],
        ],
    )
    assert transform.spec.numeric == (
        "plain", "scaled", "log", "clipped", "filled", "constant", "filled_missing",
    )  # fmt: skip
    expected = [[3, 1, 1, 2, 1, 0, 0], [0, -0.5, -1, -1, 7, 0, 1], [0, 0, 0, 0.5, 7, 1, 1]]
    assert got["numeric"] == pytest.approx(np.array(expected), abs=1e-7)
    assert got["numeric"].dtype == np.float32
    assert got["ids"].shape == (3, 0)


def test_quantile_buckets_by_hand() -> None:
    features = [
        {"name": "b", "kind": "numeric", "quantile_buckets": 4, "clip": [-10, 2.5]},
        {"name": "also", "kind": "numeric", "column": "b", "scale": "none"},
        {"name": "none", "kind": "numeric", "quantile_buckets": 2},
    ]
    transform = build(
        features,
        {
            "b": numeric(bucket_boundaries=[1.0, 2.0, 3.0]),
            "also": numeric(),
            "none": numeric(bucket_boundaries=[]),
        },
    )
    values = [0.5, 1.0, 1.9, 2.0, 99, -99, math.nan, math.inf]
    got = encode(transform, [[v, v] for v in values])
    assert got["ids"][:, 0].tolist() == [1, 2, 2, 3, 3, 1, 0, 0]
    assert got["ids"][:, 1].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    assert [f.vocab_size for f in transform.spec.categorical] == [5, 2]
    assert got["numeric"][:, 0].tolist() == pytest.approx(np.nan_to_num(values, posinf=0).tolist())


# ------------------------------------------------------------------------------------- texts

VOCABULARY = {
    "c": [b"red", b"blue", "gr\u00fcn".encode()],
    "d": [b"red"],
    "x": [b"red\x1fred", b"blue\x1fbig"],
}
CATEGORICAL = [
    {"name": "c", "kind": "categorical", "num_oov_buckets": 5},
    {"name": "d", "kind": "categorical"},
    {"name": "h", "kind": "categorical", "max_vocab_size": 0, "num_oov_buckets": 100},
    {"name": "x", "kind": "cross", "of": ["c", "d"], "num_oov_buckets": 2},
]


@pytest.fixture(scope="module")
def categorical() -> FeatureTransform:
    return build(CATEGORICAL, {}, {**VOCABULARY, "h": []})


def test_ids_by_hand(categorical: FeatureTransform) -> None:
    got = encode(
        categorical,
        texts=[
            [b"red", b"red", b"q"],
            [b"blue", b"big", b""],
            [b"", b"red", b"q"],
            [b"x", b"y", b"z"],
        ],
    )["ids"]
    assert got.tolist() == [
        [6, 2, unseen(b"q", 100), 3],
        [7, 1, 0, 4],
        [0, 2, unseen(b"q", 100), 0],
        [unseen(b"x", 5), 1, unseen(b"z", 100), unseen(b"x\x1fy", 2)],
    ]
    assert [f.vocab_size for f in categorical.spec.categorical] == [9, 3, 101, 5]


SEQUENCES = [
    {"name": "c", "kind": "categorical", "num_oov_buckets": 5},
    {"name": "new", "kind": "sequence", "column": "s", "max_length": 3, "vocabulary_of": "c"},
    {"name": "old", "kind": "sequence", "column": "s", "max_length": 3, "keep": "first"},
    {"name": "wide", "kind": "sequence", "separator": "||", "max_length": 2, "num_oov_buckets": 7},
]


def test_sequences_by_hand() -> None:
    transform = build(SEQUENCES, {}, {"c": VOCABULARY["c"], "old": [b"a", b"b"], "wide": [b"k"]})
    got = encode(
        transform,
        texts=[[b"", b"red,blue,a,b", b"k"], [b"", b",,a,", b"k||n||k"], [b"", b"", b"||"]],
    )
    a, b = unseen(b"a", 5), unseen(b"b", 5)
    assert got["sequence/new"].tolist() == [[7, a, b], [a, 0, 0], [0, 0, 0]]
    assert got["sequence/old"].tolist() == [[1, 1, 2], [2, 0, 0], [0, 0, 0]]
    assert got["sequence/wide"].tolist() == [[8, 0], [unseen(b"n", 7), 8], [0, 0]]
    assert [s.vocab_size for s in transform.spec.sequences] == [9, 4, 9]
    assert [s.vocabulary_of for s in transform.spec.sequences] == ["c", "old", "wide"]


def test_ids_equal_an_independent_computation(categorical: FeatureTransform) -> None:
    rng = np.random.default_rng(3)
    pool = [b"red", b"blue", "gr\u00fcn".encode(), b"", b"other", b"big", "\u043a\u043b".encode()]
    frame = pd.DataFrame({n: rng.choice(np.array(pool, object), 500) for n in ("c", "d", "h")})
    frame["x"] = [
        b"" if b"" in pair else b"\x1f".join(pair) for pair in zip(frame.c, frame.d, strict=True)
    ]
    got = encode(categorical, texts=frame[["c", "d", "h"]].to_numpy().tolist())["ids"]
    buckets = {"c": 5, "d": 1, "h": 100, "x": 2}
    for i, name in enumerate(("c", "d", "h", "x")):
        known = {v: 1 + buckets[name] + k for k, v in enumerate(VOCABULARY.get(name, []))}
        ids = [0 if not v else known.get(v) or unseen(v, buckets[name]) for v in frame[name]]
        assert got[:, i].tolist() == ids, name


def test_equal_fingerprints_of_two_features_do_not_meet() -> None:
    features = [{"name": f"f{i}", "kind": "categorical"} for i in range(20)]
    values = {f"f{i}": [b"same", b"f%d" % i] for i in range(20)}
    got = encode(build(features, {}, values), texts=[[b"same"] * 20, [b"f3"] * 20])["ids"]
    assert got[0].tolist() == [2] * 20
    assert got[1].tolist() == [3 if i == 3 else 1 for i in range(20)]


# ------------------------------------------------------------------------------------- hostile

HOSTILE_FEATURES = [
    {"name": "n", "kind": "numeric", "log1p": True, "missing_indicator": True},
    {"name": "m", "kind": "numeric", "clip": [-1e6, 1e30]},
    {"name": "q", "kind": "numeric", "column": "n", "quantile_buckets": 3},
    *CATEGORICAL,
    {"name": "s", "kind": "sequence", "max_length": 4, "vocabulary_of": "c"},
    {
        "name": "iso",
        "kind": "datetime",
        "column": "c",
        "parts": ["hour", "weekday", "day", "month"],
    },
    {"name": "epoch", "kind": "datetime", "column": "d", "format": "epoch_s"},
    {"name": "short", "kind": "datetime", "column": "h", "format": "%y%m%d%H"},
]
HOSTILE_NUMBERS = {
    "n": numeric(0.3, 1.7),
    "m": numeric(11.0, 3.1),
    "q": numeric(bucket_boundaries=[-1.0, 0.25]),
}


@pytest.fixture(scope="module")
def hostile() -> FeatureTransform:
    return build(HOSTILE_FEATURES, HOSTILE_NUMBERS, {**VOCABULARY, "h": []})


number = st.floats(width=32) | st.sampled_from([0.0, -0.0, 3.4e38, -3.4e38, 1e-45, math.nan])
text = (
    st.binary(max_size=30)
    | st.text(max_size=20).map(lambda t: t.encode("utf-8", "replace"))
    | st.sampled_from(
        [b"red", b"blue", b"red,,blue,", b"2019-02-30 25:61:61", b"99999999", b"1" * 25]
    )
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(number, number, text, text, text, text), min_size=1, max_size=9))
def test_hostile_rows_give_valid_tensors_alone_and_together(
    hostile: FeatureTransform, rows: list[tuple[Any, ...]]
) -> None:
    numbers, texts = [list(r[:2]) for r in rows], [list(r[2:]) for r in rows]
    together = encode(hostile, numbers, texts)
    assert np.isfinite(together["numeric"]).all()
    sizes = [f.vocab_size for f in hostile.spec.categorical]
    assert ((together["ids"] >= 0) & (together["ids"] < sizes)).all()
    assert ((together["sequence/s"] >= 0) & (together["sequence/s"] < 9)).all()
    schema, columns = hostile.schema, list(zip(*rows, strict=True))
    arrays = [pa.array(c, pa.float64()) for c in columns[:2]]
    arrays += [pa.array(c, pa.binary()) for c in columns[2:]]
    table = pa.table(arrays, names=[*schema.input_numbers, *schema.input_texts])
    for key, values in hostile.encode_table(table).items():  # how Beam calls it
        assert values.tobytes() == together[key].tobytes(), key
    for i in range(len(rows)):
        alone = encode(hostile, numbers[i : i + 1], texts[i : i + 1])
        for key, values in alone.items():
            assert values[0].tobytes() == together[key][i].tobytes(), key


@pytest.mark.parametrize("batch", [1, 7, 8192])
def test_the_same_bits_at_every_batch_size(hostile: FeatureTransform, batch: int) -> None:
    rng = np.random.default_rng(5)
    rows = 8192
    numbers = (rng.standard_normal((rows, 2)) * 10.0 ** rng.integers(-3, 6, (rows, 2))).astype("f4")
    pool = np.array([b"red", b"blue", b"", b"b,red", b"2014-10-21 05:00:00", b"14102100"], object)
    texts = rng.choice(pool, (rows, len(hostile.schema.input_texts)))
    whole = hostile.encode_numpy(numbers, texts)
    taken = range(0, 300 if batch == 1 else 700 if batch == 7 else rows, batch)
    for start in taken:
        part = hostile.encode_numpy(numbers[start : start + batch], texts[start : start + batch])
        for key, values in part.items():
            assert values.tobytes() == whole[key][start : start + batch].tobytes(), key


def test_no_rows_give_empty_tensors(hostile: FeatureTransform) -> None:
    got = encode(hostile, [], [])
    assert {k: v.shape for k, v in got.items()} == {
        "numeric": (0, 3),
        "ids": (0, 13),
        "sequence/s": (0, 4),
    }


def test_columns_by_name_and_as_matrices_agree(hostile: FeatureTransform) -> None:
    numbers = np.array([[1.5, np.nan]], np.float32)
    texts = np.array([[b"red", b"5", b"", b"red"]], object)
    raw = {n: tf.constant(numbers[:, i]) for i, n in enumerate(hostile.schema.input_numbers)}
    raw |= {n: tf.constant(texts[:, i]) for i, n in enumerate(hostile.schema.input_texts)}
    named = tf.function(hostile)(raw)
    for key, values in hostile.encode_numpy(numbers, texts).items():
        assert named[key].numpy().tobytes() == values.tobytes()


# ------------------------------------------------------------------------------------- time

FORMATS = ("iso", "epoch_s", "epoch_ms", "%Y-%m-%d %H:%M:%S", "%y%m%d%H", "%d.%m.%Y", "%Y/%m")


@pytest.fixture(scope="module")
def times() -> FeatureTransform:
    parts = ["hour", "weekday", "day", "month"]
    return build(
        [{"name": f"t{i}", "kind": "datetime", "format": f, "parts": parts}
         for i, f in enumerate(FORMATS)]
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    at=st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59)),
    year=st.integers(1969, 2068),
)
def test_date_parts_equal_pythons(
    times: FeatureTransform, at: datetime.datetime, year: int
) -> None:
    short = at.replace(year=year, day=min(at.day, 28))
    seconds = int(at.replace(microsecond=0, tzinfo=datetime.UTC).timestamp())
    row, expected = [], []
    for form in FORMATS:
        if form == "iso":
            written, seen = at.isoformat("T") + "+00:00", at
        elif form.startswith("epoch"):
            written, seen = str(seconds * (1000 if form == "epoch_ms" else 1)), at
        else:
            seen = short if "%y" in form else at
            written = seen.strftime(form.replace("%Y", f"{seen.year:04d}"))
            seen = datetime.datetime.strptime(written, form)
        row.append(written.encode())
        parts = [1 + seen.hour, 1 + seen.weekday(), seen.day, seen.month]
        fits = not form.startswith("epoch") or 1971 <= seen.year <= 2100  # else of another unit
        expected += parts if fits else [0, 0, 0, 0]
    assert encode(times, texts=[row])["ids"][0].tolist() == expected


BAD_TIMES = {
    "iso": ["2014-02-29 00:00:00", "2014-10-21", "2014-10-21 24:00:00", "2014-10-21 00:60:00"],
    "epoch_s": ["-1", "1e9", "", " 1", "1" * 19],
    "%y%m%d%H": ["1410210", "14102124", "14133100", "141021000", "1410 100"],
    "%d.%m.%Y": ["31.04.2014", "1.4.2014", "00.01.2014", "29.02.1900"],
}


@pytest.mark.parametrize("form", list(BAD_TIMES))
def test_texts_that_are_no_time_are_missing(form: str) -> None:
    feature = {"name": "t", "kind": "datetime", "format": form, "parts": ["hour", "month"]}
    got = encode(build([feature]), texts=[[b.encode()] for b in BAD_TIMES[form]])["ids"]
    assert got.tolist() == [[0, 0]] * len(BAD_TIMES[form])


def test_two_digit_years_are_read_as_python_reads_them() -> None:
    feature = {"name": "t", "kind": "datetime", "format": "%y%m%d", "parts": ["weekday"]}
    got = encode(build([feature]), texts=[[b"690101"], [b"680101"]])["ids"][:, 0].tolist()
    years = (datetime.date(1969, 1, 1), datetime.date(2068, 1, 1))
    assert got == [1 + day.weekday() for day in years]


# ------------------------------------------------------------------------------------- images


def test_images_and_missing_images() -> None:
    picture = {"name": "picture", "kind": "image", "height": 4, "width": 3, "channels": 1}
    transform = build([{"name": "c", "kind": "categorical"}, picture], {}, {"c": []})
    pixels = np.arange(12, dtype=np.uint8).reshape(4, 3, 1) * 20
    double = np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1)
    encoded = [tf.io.encode_png(p).numpy() for p in (pixels, double)]
    jpeg = tf.io.encode_jpeg(np.full((9, 9, 1), 200, np.uint8)).numpy()
    images = {"picture": np.array([*encoded, b"", jpeg], object)}
    got = transform.encode_numpy(np.zeros((4, 0), np.float32), np.full((4, 1), b"", object), images)
    result = got["image/picture"]
    assert result.dtype == np.uint8
    assert result[0].tolist() == pixels.tolist()
    assert result[1].tolist() == pixels.tolist()  # half of a doubled image is the image
    assert not result[2].any()
    assert (np.abs(result[3].astype(int) - 200) <= 1).all()


# ------------------------------------------------------------------------------------- fingerprint


def test_the_fingerprint_follows_what_the_encoding_follows() -> None:
    base = build(HOSTILE_FEATURES, HOSTILE_NUMBERS, {**VOCABULARY, "h": []}).spec.fingerprint
    assert (
        base == build(HOSTILE_FEATURES, HOSTILE_NUMBERS, {**VOCABULARY, "h": []}).spec.fingerprint
    )
    changed = [
        build(
            HOSTILE_FEATURES, {**HOSTILE_NUMBERS, "n": numeric(0.4, 1.7)}, {**VOCABULARY, "h": []}
        ),
        build(HOSTILE_FEATURES, HOSTILE_NUMBERS, {**VOCABULARY, "h": [], "d": [b"re", b"d"]}),
        build(
            HOSTILE_FEATURES, HOSTILE_NUMBERS, {**VOCABULARY, "h": [], "c": VOCABULARY["c"][::-1]}
        ),
        build(HOSTILE_FEATURES[:-1], HOSTILE_NUMBERS, {**VOCABULARY, "h": []}),
    ]
    prints = [base, *(t.spec.fingerprint for t in changed)]
    assert len(set(prints)) == len(prints)
