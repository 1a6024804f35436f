"""The fused table: which row an id reads, how a sequence is pooled, what its gradient touches."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.keras2 import keras
from models.layers.feature_embedding import FeatureEmbedding, field_rows
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec, IdFeature, SequenceFeature

SPEC = EncodedSpec(
    numeric=(),
    categorical=(IdFeature("ad", 4), IdFeature("site", 3)),
    sequences=(SequenceFeature("history", 4, 3, "ad"), SequenceFeature("words", 5, 2, "words")),
)


def counting_table(spec: EncodedSpec = SPEC) -> FeatureEmbedding:
    """A layer of dim 2 whose row r is [r, -r]."""
    layer = FeatureEmbedding(spec, 2)
    layer.build(None)
    rows = np.arange(layer.num_rows, dtype=np.float32)
    layer.tables[0].assign(np.stack([rows, -rows], axis=1))
    return layer


def batch(ids, history, words):
    return {
        "ids": tf.constant(ids, tf.int32),
        "sequence/history": tf.constant(history, tf.int32),
        "sequence/words": tf.constant(words, tf.int32),
    }


def test_every_id_reads_the_row_of_its_feature():
    # rows: ad 0..3 (shared with history), site 4..6, words 7..11
    inputs = batch([[1, 2], [3, 0]], [[1, 3, 0], [0, 0, 0]], [[4, 0], [1, 2]])
    fields = counting_table()(inputs).numpy()
    np.testing.assert_array_equal(fields[:, :, 0], [[1, 6, 2.0, 11], [3, 4, 0, 8.5]])
    np.testing.assert_array_equal(fields[:, :, 1], -fields[:, :, 0])


def test_a_sequence_unpooled_reads_the_same_rows_with_its_mask():
    layer = counting_table()
    inputs = batch([[1, 2]], [[2, 3, 0]], [[4, 0]])
    embedded, mask = layer.embed_sequence(inputs, "history")
    np.testing.assert_array_equal(embedded[0, :, 0], [2, 3, 0])
    np.testing.assert_array_equal(mask, [[True, True, False]])
    np.testing.assert_array_equal(layer.embed_sequence(inputs, "words")[0][0, :, 0], [11, 7])


def test_a_sequence_longer_in_vocabulary_than_its_owner_gets_rows_for_all_its_ids():
    spec = EncodedSpec(
        (), (IdFeature("ad", 2), IdFeature("z", 2)), (SequenceFeature("s", 9, 1, "ad"),)
    )
    rows = field_rows(spec)
    assert (rows["ad"].num_rows, rows["s"].offset, rows["z"].offset) == (9, 0, 9)


def test_the_gradient_is_row_sparse_and_touches_only_the_batch():
    layer = counting_table()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(batch([[1, 2]], [[2, 3, 0]], [[0, 0]]))[..., 0])
    gradient = tape.gradient(total, layer.tables[0])
    assert isinstance(gradient, tf.IndexedSlices)
    dense = tf.convert_to_tensor(gradient).numpy()
    expected = np.zeros((12, 2))
    expected[[1, 6], 0] = 1  # the two ids
    expected[[2, 3], 0] = 0.5  # the mean of two
    np.testing.assert_array_equal(dense, expected)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_no_categorical_feature_gives_no_field(batch_size):
    layer = FeatureEmbedding(EncodedSpec(("x",), ()), 8)
    assert layer({"numeric": tf.zeros([batch_size, 1])}).shape == (batch_size, 0, 8)
    assert layer.tables == []
    assert layer.num_fields == 0


def test_sequences_alone_need_no_ids_tensor():
    spec = EncodedSpec((), (), (SequenceFeature("s", 3, 2, "s"),))
    fields = counting_table(spec)({"sequence/s": tf.constant([[1, 2]])})
    np.testing.assert_array_equal(fields, [[[1.5, -1.5]]])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=9))
def test_a_row_does_not_depend_on_its_batch(ids):
    layer = counting_table()
    history, words = [[1, 0, 2]] * len(ids), [[3, 4]] * len(ids)
    together = layer(batch(ids, history, words)).numpy()
    alone = [layer(batch([i], [[1, 0, 2]], [[3, 4]])).numpy()[0] for i in ids]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_config_round_trip():
    layer = FeatureEmbedding(SPEC, 5, initializer="glorot_uniform", name="fields")
    again = FeatureEmbedding.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.spec == SPEC


def test_sharing_a_vocabulary_that_is_not_there_is_refused():
    spec = EncodedSpec((), (IdFeature("ad", 4),), (SequenceFeature("s", 4, 2, "item"),))
    with pytest.raises(ConfigError, match=r"'s' shares 'item'.*Share one of \['ad'\]"):
        FeatureEmbedding(spec, 4)


def test_a_width_below_one_is_refused():
    with pytest.raises(ConfigError, match="at least 1 dimension; got 0"):
        FeatureEmbedding(SPEC, 0)


@pytest.mark.parametrize("initializer", ["uniform", "random_normal", "truncated_normal"])
def test_the_table_starts_with_the_numbers_of_its_initializer(initializer):
    keras.utils.set_random_seed(5)
    plain = keras.initializers.get(initializer)((12, 2), dtype=tf.float32)
    keras.utils.set_random_seed(5)
    layer = FeatureEmbedding(SPEC, 2, initializer=initializer)
    layer.build(None)
    np.testing.assert_array_equal(layer.tables[0], plain)


MAKES_A_LARGE_TABLE = """
import resource, sys
from models.layers.feature_embedding import FeatureEmbedding
from pipeline.records.encoded import EncodedSpec, IdFeature

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

FeatureEmbedding(EncodedSpec((), (IdFeature("few", 9),)), 64).build(None)
before = peak_mb()
FeatureEmbedding(EncodedSpec((), (IdFeature("many", 1_000_000),)), 64).build(None)
print((peak_mb() - before) / 244.1)  # a table is 1 M x 64 x 4 bytes
"""


def test_making_a_table_does_not_take_the_memory_of_three():
    done = subprocess.run(
        [sys.executable, "-c", MAKES_A_LARGE_TABLE], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 2.0  # three, if the numbers were scaled and shifted eagerly
