"""Cross networks against the papers' formulas, computed in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from models.layers.cross import CrossMixture, CrossMixtureNetwork, CrossNetwork, CrossNetworkV2

RNG = np.random.default_rng(0)
X0 = RNG.normal(size=(5, 4)).astype(np.float32)


def randomize(layer):
    layer.set_weights([RNG.normal(size=w.shape).astype(np.float32) for w in layer.get_weights()])
    return layer.get_weights()


def test_one_v2_layer_by_hand():
    layer = CrossNetworkV2(1)
    x = tf.constant([[1.0, 2.0]])
    layer(x)
    layer.set_weights([np.array([[1.0, 0.0], [3.0, 1.0]], np.float32), np.array([0.5, -1.0])])
    # x W = [1 + 6, 2] = [7, 2]; + b = [7.5, 1]; x0 * that = [7.5, 2]; + x = [8.5, 4]
    np.testing.assert_allclose(layer(x), [[8.5, 4.0]])


def test_v2_full():
    layer = CrossNetworkV2(2)
    layer(X0)
    w1, b1, w2, b2 = randomize(layer)
    x1 = X0 * (X0 @ w1 + b1) + X0
    np.testing.assert_allclose(layer(X0), X0 * (x1 @ w2 + b2) + x1, rtol=1e-4, atol=1e-4)


def test_v2_low_rank():
    layer = CrossNetworkV2(2, projection_dim=2)
    layer(X0)
    u1, v1, b1, u2, v2, b2 = randomize(layer)
    assert u1.shape == (4, 2)
    assert v1.shape == (2, 4)
    x1 = X0 * (X0 @ u1 @ v1 + b1) + X0
    np.testing.assert_allclose(layer(X0), X0 * (x1 @ u2 @ v2 + b2) + x1, rtol=1e-4, atol=1e-4)


def test_v1():
    layer = CrossNetwork(2)
    layer(X0)
    w, b = randomize(layer)
    x1 = X0 * (X0 @ w[0])[:, None] + b[0] + X0
    expected = X0 * (x1 @ w[1])[:, None] + b[1] + x1
    np.testing.assert_allclose(layer(X0), expected, rtol=1e-4, atol=1e-4)


def test_mixture_of_experts():
    layer = CrossMixture(3, projection_dim=2)
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    layer(X0, x)
    randomize(layer)
    v, c, u, b = (w.numpy() for w in (layer.v, layer.c, layer.u, layer.b))
    gate_kernel, gate_bias = layer.gate.get_weights()
    scores = np.exp(x @ gate_kernel + gate_bias)
    gates = scores / scores.sum(axis=1, keepdims=True)
    expected = x.astype(np.float64)
    for k in range(3):
        expert = X0 * (np.tanh(np.tanh(x @ v[k]) @ c[k]) @ u[k] + b)
        expected = expected + gates[:, k : k + 1] * expert
    np.testing.assert_allclose(layer(X0, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        CrossNetwork(3),
        CrossNetworkV2(3),
        CrossMixtureNetwork(3, num_experts=2, projection_dim=2),
    ],
)
def test_every_layer_of_a_stack_learns(layer):
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(layer(X0) ** 2)
    gradients = tape.gradient(y, layer.trainable_weights)
    assert all(g is not None and np.abs(g.numpy()).sum() > 0 for g in gradients)
