"""One table for every vocabulary: keys that collide get another constant, or are refused."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.statistics.vocabulary import content_bytes
from pipeline.transform import vocabulary_table
from pipeline.transform.vocabulary_table import VocabularyTable


def first_salt(name: str) -> int:
    digest = hashlib.sha256(f"0 {name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def ids_of(table: VocabularyTable, owner: str, texts: list[bytes]) -> list[int]:
    salts, buckets = table.constants([owner])
    return table.lookup(tf.constant(texts)[:, None], salts, buckets)[:, 0].numpy().tolist()


def test_two_features_whose_keys_would_meet_are_told_apart() -> None:
    # b's value gets the fingerprint that gives it a's key under the first constants.
    real = {"a": np.array([12345], np.int64)}
    real["b"] = real["a"] ^ first_salt("a") ^ first_salt("b")
    salts = vocabulary_table._salts(real)
    assert salts["a"] == first_salt("a")
    assert salts["b"] != first_salt("b")
    assert (real["a"] ^ salts["a"]) != (real["b"] ^ salts["b"])


def test_two_values_of_a_feature_with_one_fingerprint_are_refused() -> None:
    with pytest.raises(ValueError, match="two values of a share a 63-bit fingerprint"):
        vocabulary_table._salts({"a": np.array([7, 8, 7], np.int64)})


def test_a_value_has_the_id_of_its_own_feature() -> None:
    values = {
        "a": pa.array([b"x", b"y"]),
        "b": pa.array([b"y", b"x", b"z"]),
        "c": pa.array([], pa.binary()),
    }
    table = VocabularyTable(values, {"a": 1, "b": 2, "c": 3})
    assert ids_of(table, "a", [b"", b"x", b"y", b"z"]) == [0, 2, 3, 1]
    assert ids_of(table, "b", [b"", b"y", b"x", b"z"]) == [0, 3, 4, 5]
    assert set(ids_of(table, "c", [b"x", b"y", b"z"])) <= {1, 2, 3}


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.binary(max_size=4)), cut=st.integers(0, 5))
def test_content_is_every_length_then_every_byte(texts: list[bytes], cut: int) -> None:
    values, rest = pa.array(texts, pa.binary())[cut:], texts[cut:]
    lengths = np.array([len(t) for t in rest], "<i8")
    assert content_bytes(values) == lengths.tobytes() + b"".join(rest)


def test_with_one_bucket_everywhere_every_unseen_value_is_1() -> None:
    table = VocabularyTable({"a": pa.array([b"x", b"y"]), "b": pa.array([b"y"])}, {"a": 1, "b": 1})
    assert ids_of(table, "a", [b"", b"x", b"y", b"z", b"w"]) == [0, 2, 3, 1, 1]
    assert ids_of(table, "b", [b"", b"x", b"y"]) == [0, 1, 2]
