"""Golden numbers of every norm, worked by hand on rows whose moments are whole numbers."""

import numpy as np
import pytest
import tensorflow as tf

from models.keras2 import keras
from models.layers.normalization import RMSNorm, VarianceOnlyLayerNorm
from models.norms.base import NORMS
from pipeline.errors import ConfigError


def norm(kind, axis_kind="units", **options):
    return NORMS[kind](**{"epsilon": 1e-6, **options}).make_layer(axis_kind)


ROW = tf.constant([[0.0, 1.0, 2.0]])  # mean 1, variance 2/3, mean square 5/3


@pytest.mark.parametrize(
    "epsilon", [1e-6, 1e-3]
)  # below and above the limit of Keras' fused kernel
def test_layer(epsilon):
    expected = [[-1.22474487, 0.0, 1.22474487]]  # 1 / sqrt(2/3)
    np.testing.assert_allclose(norm("layer", epsilon=epsilon)(ROW), expected, atol=2 * epsilon)


def test_rms():
    np.testing.assert_allclose(norm("rms")(ROW), [[0.0, 0.77459667, 1.54919334]], atol=1e-6)


def test_variance_only_keeps_the_mean():
    np.testing.assert_allclose(
        norm("variance_only")(ROW), [[0.0, 1.22474487, 2.44948974]], atol=3e-6
    )


def test_variance_only_learns_nothing_and_rms_a_gain():
    layer, rms = norm("variance_only"), norm("rms")
    layer(ROW), rms(ROW)
    assert layer.weights == []
    rms.gamma.assign([1.0, 2.0, 3.0])
    np.testing.assert_allclose(rms(ROW), [[0.0, 1.54919334, 4.64758002]], atol=1e-5)


def test_group():
    row = tf.constant([[0.0, 2.0, 10.0, 14.0]])  # groups (0, 2) and (10, 14)
    np.testing.assert_allclose(norm("group", groups=2)(row), [[-1, 1, -1, 1]], atol=1e-6)


def test_instance_reduces_the_fields_per_dim():
    x = tf.constant([[[0.0, 5.0], [2.0, 9.0]]])  # [1, 2 fields, 2 dims]: 0, 2 and 5, 9
    expected = [[[-1, -1], [1, 1]]]
    np.testing.assert_allclose(norm("instance", "fields")(x), expected, atol=1e-6)


def test_layer_on_fields_reduces_the_dim_per_field():
    x = tf.constant([[[0.0, 4.0], [1.0, 3.0]]])
    expected = [[[-1, 1], [-1, 1]]]
    np.testing.assert_allclose(norm("layer", "fields")(x), expected, atol=1e-6)


def test_images():
    pixels = np.zeros((1, 2, 1, 2), np.float32)  # [1, height 2, width 1, 2 channels]
    pixels[0, :, 0, 0], pixels[0, :, 0, 1] = (0, 2), (10, 14)

    def of(kind):
        return norm(kind, "image")(pixels).numpy()[0, :, 0, :]

    np.testing.assert_allclose(of("instance"), [[-1, -1], [1, 1]], atol=1e-6)
    # the whole image: values 0, 10, 2, 14; mean 6.5, variance 32.75, mean square 75
    whole = np.array([[0.0, 10.0], [2.0, 14.0]])
    np.testing.assert_allclose(of("layer"), (whole - 6.5) / 5.7227615, atol=1e-5)
    np.testing.assert_allclose(of("variance_only"), whole / 5.7227615, atol=1e-5)
    np.testing.assert_allclose(of("rms"), whole / 8.6602540, atol=1e-5)


def test_batch_normalizes_by_the_batch_in_training_and_by_moving_statistics_after():
    x = tf.constant([[0.0], [4.0]])  # mean 2, variance 4
    layer = norm("batch", momentum=0.9)
    np.testing.assert_allclose(layer(x, training=True), [[-1], [1]], atol=1e-6)
    np.testing.assert_allclose(layer.moving_mean, [0.2])  # 0.9 * 0 + 0.1 * 2
    np.testing.assert_allclose(layer.moving_variance, [1.3])  # 0.9 * 1 + 0.1 * 4
    np.testing.assert_allclose(
        layer(x, training=False), [[-0.2 / 1.3**0.5], [3.8 / 1.3**0.5]], atol=1e-5
    )


def test_batch_on_fields_keeps_a_statistic_per_dim():
    layer = norm("batch", "fields")
    layer(tf.zeros([2, 3, 5]))
    assert layer.moving_mean.shape == (5,)


def test_batch_options_are_passed_on():
    layer = norm("batch", momentum=0.7, epsilon=0.01, synchronized=True)
    assert (layer.momentum, layer.epsilon, layer.synchronized) == (0.7, 0.01, True)
    assert norm("batch").synchronized is False


@pytest.mark.parametrize("kind", list(NORMS))
def test_epsilon_reaches_every_kind(kind):
    config = NORMS[kind](epsilon=0.125)
    layer = config.make_layer("image")
    assert config.changes_nothing or layer.epsilon == 0.125


def test_each_call_of_the_factory_makes_a_new_layer():
    assert norm("layer") is not norm("layer")


def test_none_is_the_identity():
    np.testing.assert_array_equal(norm("none")(ROW), ROW)


def test_instance_on_units_is_refused():
    with pytest.raises(ConfigError, match="each group is one number"):
        norm("instance")


@pytest.mark.parametrize("kind", ["layer", "rms", "variance_only", "group", "instance"])
@pytest.mark.parametrize("axis_kind", ["units", "fields", "image"])
def test_a_constant_row_stays_finite_with_finite_gradients(kind, axis_kind):
    if (kind, axis_kind) == ("instance", "units"):
        return
    x = tf.fill({"units": [2, 8], "fields": [2, 3, 8], "image": [2, 3, 3, 8]}[axis_kind], 3.0)
    layer = norm(kind, axis_kind, **({"groups": 2} if kind == "group" else {}))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    assert np.isfinite(y).all()
    assert np.isfinite(tape.gradient(y, x)).all()


@pytest.mark.parametrize("layer_class", [RMSNorm, VarianceOnlyLayerNorm])
def test_own_norms_round_trip_through_their_config(layer_class):
    layer = layer_class(epsilon=0.25, axes=(1, 2, 3))
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is layer_class
    assert (again.epsilon, tuple(again.axes)) == (0.25, (1, 2, 3))
