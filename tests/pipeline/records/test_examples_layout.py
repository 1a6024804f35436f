"""The examples layout: the same tensors as the packed one, readable by every protobuf parser."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec, IdFeature, ImageFeature, SequenceFeature
from pipeline.records.examples import (
    decode_examples,
    parse_spec,
    rows_from_examples,
    write_examples,
)
from pipeline.records.packed import RowLayout

SPEC = EncodedSpec(
    numeric=("price", "age", "ctr_7d"),
    categorical=(IdFeature("site", 2**31 - 1), IdFeature("prix_é", 300)),
    sequences=(SequenceFeature("history", 1000, 3, "site"), SequenceFeature("tags", 9, 1, "tags")),
    images=(ImageFeature("banner", 3, 5, 1),),  # 15 bytes: not a whole number of words
    carry=("propensity",),
)
LAYOUT = RowLayout.of(SPEC)
IDS = np.array([0, 1, 127, 128, 16383, 16384, 2**21, 2**28 - 1, 2**28, 2**31 - 1], np.int32)


def random_tensors(num_rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    floats = rng.integers(0, 2**32, (num_rows, 3), np.uint64).astype(np.uint32).view(np.float32)
    return {
        "numeric": floats,  # any bits: NaN with a payload, infinities, denormals
        "ids": rng.choice(IDS, (num_rows, 2)),
        "sequence/history": rng.choice(IDS, (num_rows, 3)),
        "sequence/tags": rng.choice(IDS, (num_rows, 1)),
        "image/banner": rng.integers(0, 256, (num_rows, 3, 5, 1)).astype(np.uint8),
        "label": rng.integers(0, 2, num_rows).astype(np.float32),
        "weight": rng.random(num_rows).astype(np.float32),
        "carry": rng.random((num_rows, 1)).astype(np.float32),
    }


def assert_same_bits(actual: dict[str, tf.Tensor], expected: dict[str, np.ndarray]) -> None:
    assert set(actual) == set(expected)
    for key, value in expected.items():
        found = actual[key].numpy()
        assert (found.shape, found.dtype) == (value.shape, value.dtype), key
        assert found.tobytes() == np.ascontiguousarray(value).tobytes(), key


def written_examples(layout: RowLayout, spec: EncodedSpec, rows: np.ndarray) -> list[bytes]:
    """The records of the file that `write_examples` makes."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/part.tfrecord"
        write_examples(path, layout, spec, rows)
        return list(tf.data.TFRecordDataset(path).as_numpy_iterator())


def test_one_example_byte_by_byte() -> None:
    spec = EncodedSpec(numeric=("x",), categorical=(IdFeature("c", 400),))
    layout = RowLayout.of(spec)
    rows = layout.pack(
        {
            "numeric": np.array([[1.5]], np.float32),
            "ids": np.array([[300]], np.int32),
            "label": np.array([1], np.float32),
            "weight": np.array([1], np.float32),
            "carry": np.zeros((1, 0), np.float32),
        }
    )
    # By hand from the protobuf encoding: 300 = 0b10_0101100 -> AC 02, padded to AC 82 80 80 00.
    x = b"\x0a\x0d" + b"\x0a\x01x" + b"\x12\x08" + b"\x12\x06" + b"\x0a\x04" + b"\x00\x00\xc0\x3f"
    c = (
        b"\x0a\x0e"
        + b"\x0a\x01c"
        + b"\x12\x09"
        + b"\x1a\x07"
        + b"\x0a\x05"
        + b"\xac\x82\x80\x80\x00"
    )
    one = struct.pack("<f", 1.0)
    label = b"\x0a\x11" + b"\x0a\x05label" + b"\x12\x08\x12\x06\x0a\x04" + one
    weight = b"\x0a\x12" + b"\x0a\x06weight" + b"\x12\x08\x12\x06\x0a\x04" + one
    body = x + c + label + weight
    assert written_examples(layout, spec, rows) == [b"\x0a" + bytes([len(body)]) + body]


def test_protobuf_reads_the_values() -> None:
    tensors = random_tensors(50)
    for i, text in enumerate(written_examples(LAYOUT, SPEC, LAYOUT.pack(tensors))):
        feature = tf.train.Example.FromString(text).features.feature
        assert set(feature) == set(parse_spec(SPEC))
        assert feature["site"].int64_list.value == [tensors["ids"][i, 0]]
        assert feature["history"].int64_list.value == tensors["sequence/history"][i].tolist()
        assert feature["banner"].bytes_list.value == [tensors["image/banner"][i].tobytes()]
        assert feature["propensity"].float_list.value == [tensors["carry"][i, 0]]
        # Written again by protobuf itself, in the shortest form: the same message.
        again = tf.train.Example.FromString(tf.train.Example.FromString(text).SerializeToString())
        assert again == tf.train.Example.FromString(text) or np.isnan(tensors["numeric"][i]).any()


@pytest.mark.parametrize("num_rows", [1, 2, 4001])  # 4001: more than one chunk
def test_both_layouts_give_the_same_bits(num_rows: int, tmp_path: Path) -> None:
    tensors = random_tensors(num_rows, seed=num_rows)
    rows = LAYOUT.pack(tensors)
    path = str(tmp_path / "part-0.tfrecord")
    write_examples(path, LAYOUT, SPEC, rows)
    (serialized,) = tf.data.TFRecordDataset(path).batch(num_rows)
    assert_same_bits(decode_examples(serialized, SPEC), tensors)
    words = tf.function(lambda s: rows_from_examples(s, LAYOUT, SPEC))(serialized)
    assert words.numpy().tobytes() == rows.tobytes()
    assert_same_bits(LAYOUT.unpack(words), tensors)


def test_parse_single_example_and_unbatched_readers() -> None:
    tensors = random_tensors(1)
    (text,) = written_examples(LAYOUT, SPEC, LAYOUT.pack(tensors))
    parsed = tf.io.parse_single_example(text, parse_spec(SPEC))
    assert parsed["history"].numpy().tolist() == tensors["sequence/history"][0].tolist()
    assert parsed["prix_é"].numpy() == tensors["ids"][0, 1]


@settings(max_examples=40, deadline=None)
@given(
    numeric=hnp.arrays(np.float32, (3, 2), elements=st.floats(width=32)),
    ids=hnp.arrays(np.int32, (3, 1), elements=st.integers(0, 2**31 - 1)),
)
def test_any_value_survives(numeric: np.ndarray, ids: np.ndarray) -> None:
    spec = EncodedSpec(numeric=("a", "b"), categorical=(IdFeature("c", 2**31 - 1),))
    layout = RowLayout.of(spec)
    tensors = {
        "numeric": numeric,
        "ids": ids,
        "label": np.zeros(3, np.float32),
        "weight": np.ones(3, np.float32),
        "carry": np.zeros((3, 0), np.float32),
    }
    serialized = tf.constant(written_examples(layout, spec, layout.pack(tensors)))
    assert_same_bits(decode_examples(serialized, spec), tensors)


def test_no_rows() -> None:
    rows = np.zeros((0, LAYOUT.row_words), np.int32)
    assert written_examples(LAYOUT, SPEC, rows) == []


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (EncodedSpec(numeric=("weight",), categorical=()), "weight"),
        (EncodedSpec(numeric=("a",), categorical=(IdFeature("b", 3),), carry=("b",)), "b"),
    ],
)
def test_names_that_collide_are_refused(spec: EncodedSpec, name: str) -> None:
    layout = RowLayout.of(spec)
    with pytest.raises(ConfigError, match=f"differ in name.*got {name} twice.*layout=packed"):
        written_examples(layout, spec, np.zeros((1, layout.row_words), np.int32))
