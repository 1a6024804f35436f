"""What every model inherits, tried on DCN-v2."""

import numpy as np
import pytest
import tensorflow as tf

from models.config.model import parse_model_config
from models.keras2 import keras
from models.norms.batch import BatchNormConfig
from models.zoo import build_model
from models.zoo.base import CTRModel, example_inputs
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec, IdFeature

SMALL = {"name": "dcn_v2", "hidden_units": [8, 4], "embedding_dim": 4, "cross": {"num_layers": 1}}


def build(spec, dropout=None, **options):
    return build_model(parse_model_config({**SMALL, **options}), spec, dropout=dropout)


def test_logits_are_float32_one_per_row_also_for_one_row(spec, batch):
    model = build(spec)
    assert model(batch).shape == (6,)
    assert model(batch).dtype == tf.float32
    assert model({name: value[:1] for name, value in batch.items()}).shape == (1,)


def test_unneeded_inputs_are_ignored(spec, batch):
    model = build(spec)
    extra = {**batch, "label": tf.ones([6]), "weight": tf.ones([6]), "carry": tf.ones([6, 2])}
    np.testing.assert_array_equal(model(extra), model(batch))


def test_an_empty_batch_gives_no_logits(spec, batch):
    assert build(spec)({name: value[:0] for name, value in batch.items()}).shape == (0,)


def test_sparse_variables_are_the_tables_and_nothing_else(spec):
    model = build(spec)
    (table,) = model.sparse_variables
    assert table.shape == (11 + 7 + 5 + 6, 4)  # `clicked` shares the rows of `ad`
    assert any(table is weight for weight in model.trainable_weights)


def test_dropout_is_resumable_and_can_be_switched_off(spec, batch):
    model = build(spec, dropout=None, norm="none")
    noisy = build(spec, norm="none", dropout=0.5)
    noisy.set_weights(model.get_weights())  # the same weights in the same order, dropout or not
    first = noisy(batch, training=True)
    np.testing.assert_array_equal(noisy(batch, training=True), first)
    noisy.advance_step()
    assert (noisy(batch, training=True).numpy() != first.numpy()).any()
    noisy.step.assign(0)
    np.testing.assert_array_equal(noisy(batch, training=True), first)
    np.testing.assert_array_equal(noisy(batch, training=False), model(batch, training=True))


def test_layers_of_a_model_have_different_noise(spec):
    mlp = build(spec, dropout=0.5).mlp
    assert [layer.seed for layer in mlp.dropouts] == [0, 1]


def test_the_step_and_moving_statistics_survive_a_checkpoint(spec, batch, tmp_path):
    model = build(spec, norm="batch", dropout=0.3)
    model(batch, training=True)
    model.advance_step()
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    again = build(spec, norm="batch", dropout=0.3)
    tf.train.Checkpoint(model=again).read(path).assert_consumed()
    assert again.step.numpy() == 1
    np.testing.assert_array_equal(again(batch), model(batch))
    np.testing.assert_array_equal(again(batch, training=True), model(batch, training=True))


@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_weights_save_and_load_into_a_model_from_its_config(spec, batch, tmp_path, suffix):
    model = build(spec, norm="layer")
    model.save_weights(str(tmp_path / f"weights{suffix}"))
    again = type(model).from_config(model.get_config())
    assert isinstance(again, CTRModel)
    assert again.config == model.config
    again.load_weights(str(tmp_path / f"weights{suffix}"))
    np.testing.assert_array_equal(again(batch), model(batch))


def test_batch_statistics_are_known(spec):
    assert build(spec, norm="batch").has_batch_statistics
    assert not build(spec, norm="layer").has_batch_statistics


def test_batch_statistics_of_a_layer_that_is_not_keras_own_are_known(spec):
    class Centred(keras.layers.Layer):
        def call(self, x):
            return x - tf.reduce_mean(x, axis=0)

    class CentredConfig(BatchNormConfig):
        """Registered nowhere: what counts is what its class says."""

        def make_layer(self, axis_kind):
            return Centred()

    config = parse_model_config(SMALL)
    assert not build_model(config, spec).has_batch_statistics
    config = config.model_copy(update={"norm": CentredConfig()})
    assert build_model(config, spec).has_batch_statistics
    nowhere = config.model_copy(update={"hidden_units": ()})
    assert not build_model(nowhere, spec).has_batch_statistics


def test_a_norm_can_be_kept_off_the_hidden_layers(spec):
    model = build(spec, norm={"kind": "batch", "on_hidden": False, "on_embeddings": True})
    names = [type(layer).__name__ for layer in model._flatten_layers()]
    assert names.count("BatchNormalization") == 1


def test_instance_over_a_single_field_is_refused():
    norm = {"kind": "instance", "on_hidden": False, "on_embeddings": True}
    spec = EncodedSpec(numeric=("a",), categorical=(IdFeature("x", 4),))
    with pytest.raises(ConfigError, match="more than one number to a group"):
        build(spec, norm=norm)


def test_example_inputs_have_the_encoded_shapes(spec, batch):
    example = example_inputs(spec, 6)
    assert {n: (v.shape, v.dtype) for n, v in example.items()} == {
        n: (v.shape, v.dtype) for n, v in batch.items()
    }
