"""The contract of every normalization on every kind of axis."""

import numpy as np
import pytest
import tensorflow as tf

from models.keras2 import keras
from models.norms.base import NORMS
from pipeline.errors import ConfigError

SHAPES = {"units": (5, 8), "fields": (5, 3, 8), "image": (5, 4, 4, 8)}
VALID = [
    (kind, axis_kind)
    for kind in NORMS
    for axis_kind in SHAPES
    if (kind, axis_kind) != ("instance", "units")
]
every_norm = pytest.mark.parametrize("kind, axis_kind", VALID)
ROW_WISE = [pair for pair in VALID if not NORMS[pair[0]].uses_batch_statistics]


def norm_of(kind, axis_kind, **options):
    defaults = {"groups": 2} if kind == "group" else {}
    return NORMS[kind](**{**defaults, **options}).make_layer(axis_kind)


def data(axis_kind, seed=0, scale=1.0):
    x = np.random.default_rng(seed).normal(loc=0.5, scale=scale, size=SHAPES[axis_kind])
    return tf.constant(x, tf.float32)


@every_norm
def test_keeps_the_shape_and_stays_finite_at_every_scale(kind, axis_kind):
    for scale in (1e-6, 1.0, 1e4):
        y = norm_of(kind, axis_kind)(data(axis_kind, scale=scale), training=True)
        assert y.shape == SHAPES[axis_kind]
        assert np.isfinite(y).all()


@pytest.mark.parametrize("kind, axis_kind", ROW_WISE)
def test_rows_do_not_see_each_other_and_modes_agree(kind, axis_kind):
    layer, x = norm_of(kind, axis_kind), data(axis_kind)
    y = layer(x, training=True)
    np.testing.assert_array_equal(layer(x, training=False), y)
    np.testing.assert_allclose(layer(x[2:3], training=True), y[2:3], atol=1e-6)


@pytest.mark.parametrize("axis_kind", list(SHAPES))
def test_batch_norm_rows_do_see_each_other(axis_kind):
    layer, x = norm_of("batch", axis_kind), data(axis_kind)
    together = layer(x, training=True)[2:4].numpy()
    assert np.abs(layer(x[2:4], training=True).numpy() - together).max() > 1e-3


@every_norm
def test_what_is_accepted_carries_information(kind, axis_kind):
    """The output follows the input: no accepted norm is a constant."""
    layer = norm_of(kind, axis_kind)
    a, b = data(axis_kind, seed=1), data(axis_kind, seed=2)
    assert np.abs((layer(a, training=True) - layer(b, training=True)).numpy()).max() > 0.1


@every_norm
def test_round_trips_through_its_config(kind, axis_kind):
    layer, x = norm_of(kind, axis_kind, epsilon=0.01), data(axis_kind)
    layer(x)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    again(x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(x), layer(x))


@pytest.mark.parametrize("width", [1, 2, 4, 6])
@pytest.mark.parametrize(
    "kind, groups",
    [(kind, 8) for kind in NORMS if kind not in ("batch", "group")]
    + [("group", groups) for groups in (1, 2, 3, 4)],
)
def test_on_units_exactly_the_degenerate_norms_are_refused(kind, groups, width):
    """Refused: what Keras cannot build, and what gives the same row, up to sign, for every input.

    variance_only of one unit divides by the root of epsilon: it blows up instead.
    """
    options = {"groups": groups} if kind == "group" else {}
    config = NORMS[kind](epsilon=1e-9, **options)
    x = np.random.default_rng(0).normal(size=(6, width)).astype(np.float32)
    try:
        if kind == "instance":
            layer = keras.layers.GroupNormalization(groups=-1, epsilon=1e-9)
        else:
            layer = config.make_layer("units")
        y = np.abs(layer(x).numpy())
        useless = bool((y.std(axis=0) < 1e-3).all() or y.max() > 1e3)
    except ValueError:
        useless = True
    if not useless:
        config.check_width(axis_kind="units", width=width, where="here")
        return
    if width // (groups if kind == "group" else 1) == 2:
        return  # two numbers normalize to +1 and -1: one bit, which is allowed
    with pytest.raises(ConfigError):
        config.check_width(axis_kind="units", width=width, where="here")
