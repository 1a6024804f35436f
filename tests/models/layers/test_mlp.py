"""The MLP by hand: order of norm and activation, and a norm of its own for every layer."""

import numpy as np
import pytest
import tensorflow as tf

from models.layers.dropout import StatelessDropout
from models.layers.mlp import MLP
from models.norms.base import NORMS, NormPlacement
from models.norms.batch import BatchNormConfig
from models.norms.rms import RmsNormConfig

X = tf.constant([[1.0, 2.0]])
KERNEL = np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]], np.float32)  # x W = [1, -1, 2]


def mlp_with(placement, kind="variance_only"):
    mlp = MLP(
        (3,),
        norm=lambda: NORMS[kind]().make_layer("units"),
        placement=placement,
    )
    mlp(X)
    mlp.denses[0].set_weights([KERNEL, np.zeros(3, np.float32)])
    return mlp


def test_before_the_activation():
    # variance of [1, -1, 2] is 14/9: divide by 1.2472191, then ReLU
    y = mlp_with(NormPlacement.BEFORE_ACTIVATION)(X)
    np.testing.assert_allclose(y, [[0.8017837, 0.0, 1.6035675]], atol=1e-5)


def test_after_the_activation():
    # ReLU first: [1, 0, 2] has variance 2/3: divide by 0.8164966
    y = mlp_with(NormPlacement.AFTER_ACTIVATION)(X)
    np.testing.assert_allclose(y, [[1.2247449, 0.0, 2.4494897]], atol=2e-5)


def test_every_layer_has_its_own_norm_and_dropout():
    mlp = MLP(
        (4, 4),
        norm=lambda: RmsNormConfig().make_layer("units"),
        dropout=lambda: StatelessDropout(0.5, seed=0),
    )
    mlp(X)
    assert mlp.norms[0] is not mlp.norms[1]
    assert mlp.dropouts[0] is not mlp.dropouts[1]
    assert len({id(w) for w in mlp.trainable_weights}) == 2 * 3  # kernel, bias, gain


def test_training_reaches_norm_and_dropout():
    batch = MLP((3,), norm=lambda: BatchNormConfig().make_layer("units"))
    batch(X, training=True)
    assert (batch.norms[0].moving_variance.numpy() != 1).all()
    noisy = MLP((200,), dropout=lambda: StatelessDropout(0.5, seed=0), activation="tanh")
    noisy(X)
    zeros = (noisy(X, training=True).numpy() == 0).mean()
    assert 0.3 < zeros < 0.7
    assert (noisy(X, training=False).numpy() != 0).all()


def test_without_units_it_is_the_identity():
    np.testing.assert_array_equal(MLP(())(X), X)


@pytest.mark.parametrize(
    "norm, placement, has_bias",
    [
        ("batch", NormPlacement.BEFORE_ACTIVATION, False),
        ("batch", NormPlacement.AFTER_ACTIVATION, True),
        ("layer", NormPlacement.BEFORE_ACTIVATION, True),
        ("none", NormPlacement.BEFORE_ACTIVATION, True),
    ],
)
def test_a_bias_that_the_norm_removes_does_not_exist(norm, placement, has_bias):
    mlp = MLP((3,), norm=lambda: NORMS[norm]().make_layer("units"), placement=placement)
    mlp(X)
    assert mlp.denses[0].use_bias is has_bias
    assert any("bias" in w.name for w in mlp.denses[0].weights) is has_bias


def test_no_bias_is_the_same_as_one_that_batch_norm_subtracts():
    """By hand: (W x + b) - mean(W x + b) = W x - mean(W x)."""
    mlp = MLP((3,), norm=lambda: BatchNormConfig(epsilon=1e-9).make_layer("units"))
    rows = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.0]], np.float32)
    found = mlp(tf.constant(rows), training=True).numpy()
    z = rows @ mlp.denses[0].kernel.numpy() + 7.0
    expected = np.maximum((z - z.mean(axis=0)) / z.std(axis=0), 0)
    np.testing.assert_allclose(found, expected, atol=1e-3)
