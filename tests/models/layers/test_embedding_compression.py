"""Fewer rows than ids: which rows an id reads, that pairs are unique, that a compressed model trains."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config.embedding import CompressionConfig
from models.config.model import parse_model_config
from models.layers.embedding_rows import ColumnRows, FieldRows, field_rows
from models.layers.feature_embedding import FeatureEmbedding
from models.run_directory import RunDirectory
from models.zoo import build_model
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec, IdFeature, SequenceFeature, model_inputs

SCRIPT = Path(__file__).parents[1] / "training" / "tiny_training.py"
_spec = importlib.util.spec_from_file_location("tiny_training_compressed", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

KINDS = ("hash", "quotient_remainder")
# ad has 9 ids above missing; 4 rows: remainders (id - 1) mod 4, quotients 0, 1, 2
SPEC = EncodedSpec(
    numeric=(),
    categorical=(IdFeature("site", 3), IdFeature("ad", 10)),
    sequences=(SequenceFeature("seen", 10, 2, "ad"),),
)


def compressed(kind: str, spec: EncodedSpec = SPEC) -> FeatureEmbedding:
    """A layer of dim 1 whose row r is [r]; features with more than 8 ids get 4 rows."""
    layer = FeatureEmbedding(spec, 1, compression={"kind": kind, "above": 8, "rows": 4})
    layer.build(None)
    layer.tables[0].assign(np.arange(layer.num_rows, dtype=np.float32)[:, None])
    return layer


def test_hashed_ids_read_their_remainders_row():
    # rows: site 0..2; ad 3 (missing), 4..7 (remainders 0..3)
    layer = compressed("hash")
    assert layer.num_rows == 3 + 1 + 4
    inputs = {
        "ids": tf.constant([[1, 0], [2, 1], [0, 5], [0, 8]]),
        "sequence/seen": tf.constant([[0, 0], [5, 0], [9, 4], [2, 2]]),
    }
    expected = [[1, 3, 0], [2, 4, 4], [0, 4, (4 + 7) / 2], [0, 7, 5]]
    np.testing.assert_array_equal(layer(inputs)[:, :, 0], expected)


def test_quotient_and_remainder_are_multiplied():
    # rows: site 0..2; ad: missing 3, remainders 4..7, missing's second 8, quotients 9..11
    layer = compressed("quotient_remainder")
    assert layer.num_rows == 3 + (1 + 4) + (1 + 3)
    inputs = {
        "ids": tf.constant([[1, 0], [2, 1], [0, 5], [0, 8], [0, 9]]),
        "sequence/seen": tf.constant([[0, 0], [5, 0], [9, 4], [2, 2], [1, 5]]),
    }
    # r * (1 + q): 0 -> 3 * 9; 1 -> 4 * 10; 5 -> 4 * 11; 8 -> 7 * 11; 9 -> 4 * 12; 4 -> 7 * 10
    fields = [[1, 27, 0], [2, 40, 44], [0, 44, (48 + 70) / 2], [0, 77, 50], [0, 48, 42]]
    np.testing.assert_array_equal(layer(inputs)[:, :, 0], fields)
    unpooled, mask = layer.embed_sequence(inputs, "seen")
    np.testing.assert_array_equal(unpooled[2, :, 0], [48, 70])
    np.testing.assert_array_equal(mask[1], [True, False])


def test_the_gradient_of_a_pair_touches_its_two_rows_only():
    layer = compressed("quotient_remainder")
    inputs = {"ids": tf.constant([[2, 5]]), "sequence/seen": tf.constant([[0, 0]])}
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(inputs)[:, :2])
    gradient = tape.gradient(total, layer.tables[0])
    assert isinstance(gradient, tf.IndexedSlices)
    expected = np.zeros((12, 1))
    expected[2] = 1  # the site
    expected[4], expected[10] = 1 + 10, 4  # d r (1 + q) = (1 + q) dr + r dq
    np.testing.assert_array_equal(tf.convert_to_tensor(gradient), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_table_is_still_read_by_one_gather(kind):
    layer = compressed(kind)
    inputs = {
        "ids": tf.TensorSpec([None, 2], tf.int32),
        "sequence/seen": tf.TensorSpec([None, 2], tf.int32),
    }
    graph = tf.function(layer.call).get_concrete_function(inputs).graph
    assert [op.type for op in graph.get_operations()].count("ResourceGather") == 1


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    above=st.integers(8, 40),
    kind=st.sampled_from(KINDS),
    data=st.data(),
)
def test_every_id_stays_inside_its_features_rows_and_pairs_are_unique(sizes, above, kind, data):
    rows = data.draw(st.integers(4, above // 2))
    compression = CompressionConfig(kind=kind, above=above, rows=rows)
    spec = EncodedSpec((), tuple(IdFeature(f"f{i}", n) for i, n in enumerate(sizes)))
    fields = list(field_rows(spec, compression).values())
    end = 0
    for field, num_ids in zip(fields, sizes, strict=True):
        assert field.offset == end
        end += field.num_rows
        assert field.num_rows < num_ids if num_ids > above else field.num_rows == num_ids
        ids = tf.range(num_ids)[:, None]
        read = ColumnRows([field]).rows_of(ids).numpy()
        assert read.min() >= field.offset
        assert read.max() < end
        distinct = {tuple(row) for row in read}
        if kind == "hash" and field.is_compressed:
            assert len(distinct) == 1 + rows
        else:
            assert len(distinct) == num_ids
        assert not set(read[0]) & set(read[1:].ravel())  # the missing id's rows are its own


@pytest.mark.parametrize("kind", KINDS)
def test_frequent_ids_do_not_collide(kind):
    read = ColumnRows(
        [FieldRows.of("f", 0, 1000, CompressionConfig(kind=kind, above=100, rows=50))]
    )
    rows = read.rows_of(tf.range(1, 51)[:, None]).numpy()[:, 0]
    assert len(set(rows)) == 50


def test_compressed_beside_whole_features_in_any_order():
    spec = EncodedSpec(
        (), (IdFeature("a", 10), IdFeature("b", 3), IdFeature("c", 12), IdFeature("d", 11))
    )
    together = compressed("quotient_remainder", spec)
    rows = field_rows(spec, together.compression)
    ids = tf.constant([[9, 2, 11, 0], [0, 0, 1, 10]])
    for column, name in enumerate("abcd"):
        alone = ColumnRows([rows[name]])
        embedded = tf.gather(together.tables[0], alone.rows_of(ids[:, column : column + 1]))
        np.testing.assert_array_equal(
            alone.combine(embedded)[:, 0], together({"ids": ids})[:, column]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_config_round_trip(kind):
    layer = compressed(kind)
    again = FeatureEmbedding.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.num_rows == layer.num_rows


@pytest.mark.parametrize(
    "compression, message",
    [
        ({"kind": "hsh"}, "did you mean 'hash'"),
        ({"kind": "hash", "rows": 600_000}, "at most half as many rows.*rows=500000 or fewer"),
        ({"kind": "hash", "above": 4}, "above.*4"),
        ({"kind": "quotient_remainder", "rows": 1}, "rows.*1"),
        ({"rows": 1000}, "mean nothing without a kind"),
        ({"kind": "hash", "buckets": 9}, "no option 'buckets'"),
    ],
)
def test_senseless_compression_is_refused_early(compression, message):
    with pytest.raises(ConfigError, match=f"(?i){message}"):
        parse_model_config({"name": "dcn_v2", "embedding": {"compression": compression}})


def test_a_name_is_enough_and_json_keeps_it():
    config = parse_model_config({"name": "dcn_v2", "embedding": {"compression": "hash"}})
    assert config.embedding.compression == CompressionConfig(kind="hash")
    assert parse_model_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "initializer, largest, deviation",
    [
        ("uniform", 0.2, 0.2 / np.sqrt(3)),
        ("normal", np.inf, 0.2),
        ("truncated_normal", 0.4, 0.88 * 0.2),  # cut at two deviations, which narrows it
    ],
)
def test_the_initializer_is_the_configs(initializer, largest, deviation):
    spec = EncodedSpec((), (IdFeature("ad", 5000),))
    embedding = {"initializer": initializer, "scale": 0.2}
    config = parse_model_config({"name": "dcn_v2", "embedding_dim": 8, "embedding": embedding})
    (table,) = build_model(config, spec).sparse_variables
    assert np.abs(table).max() <= largest
    assert np.std(table) == pytest.approx(deviation, rel=0.03)
    assert np.mean(table) == pytest.approx(0.0, abs=0.01)


COMPRESSED = {"embedding": {"compression": {"kind": "quotient_remainder", "above": 8, "rows": 4}}}


@pytest.mark.parametrize("embedding_optimizer", ["adagrad", "rowwise_adagrad", "lazy_adam", "ftrl"])
@pytest.mark.parametrize("tables_on", ["device", "host"])
def test_a_compressed_model_learns_saves_and_loads(tmp_path, embedding_optimizer, tables_on):
    train = {"embedding_optimizer": embedding_optimizer, "tables_on": tables_on}
    train |= {"embedding_l2": 1e-5, "embedding_learning_rate": 0.05}
    result = tiny.tiny_training(tmp_path / "run", model=COMPRESSED, train=train)
    assert result.history[1]["validation"]["auc"] > 0.65  # 20 ads in 4 rows; by chance 0.5
    assert result.history[1]["train_loss"] < result.history[0]["train_loss"]
    model = RunDirectory.open(tmp_path / "run").load_model()
    rows = model_inputs(tiny.rows())
    again = type(model).from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(rows), model(rows))
    assert model.sparse_variables[0].shape[0] == (1 + 4) + (1 + 5) + 7  # ad and seen, site
