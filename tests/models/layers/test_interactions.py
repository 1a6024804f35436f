"""Factorization machine, dot products, mask block, gate and fusion: by hand or in NumPy."""

import numpy as np
import tensorflow as tf

from models.layers.dot_interaction import PairwiseDots
from models.layers.factorization_machine import FactorizationMachine
from models.layers.mask_block import MaskBlock
from models.layers.two_stream import BilinearFusion, FeatureGate
from models.norms.base import NormPlacement
from models.norms.variance_only import VarianceOnlyNormConfig

RNG = np.random.default_rng(3)
VECTORS = tf.constant([[[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]]])  # [1, 3 fields, 2 dims]
# dot products: (1, 0) = 1, (2, 0) = 8, (2, 1) = -4; squares 5, 10, 16


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def randomize(layer):
    layer.set_weights([RNG.normal(size=w.shape).astype(np.float32) for w in layer.get_weights()])


def test_factorization_machine_by_hand():
    np.testing.assert_allclose(FactorizationMachine()(VECTORS), [[1 + 8 - 4]])


def test_pairwise_dots_by_hand():
    np.testing.assert_allclose(PairwiseDots()(VECTORS), [[1, 8, -4]])
    np.testing.assert_allclose(
        PairwiseDots(self_interaction=True)(VECTORS), [[5, 1, 10, 8, -4, 16]]
    )


def test_pairwise_dots_know_their_width_in_a_graph():
    @tf.function(input_signature=[tf.TensorSpec([None, 4, 2])])
    def dots(x):
        y = PairwiseDots()(x)
        assert y.shape.as_list() == [None, 6]
        return y

    assert dots(tf.zeros([3, 4, 2])).shape == (3, 6)


def mask_block(placement):
    norm = VarianceOnlyNormConfig(epsilon=1e-12)
    block = MaskBlock(
        3,
        reduction_ratio=2.0,
        norm=lambda: norm.make_layer("units"),
        placement=placement,
    )
    v, x = (RNG.normal(size=(4, n)).astype(np.float32) for n in (5, 6))
    block((v, x))
    randomize(block)
    w1, b1 = block.mask_hidden.get_weights()
    w2, b2 = block.mask.get_weights()
    (w,) = block.hidden.get_weights()
    assert w1.shape == (5, 12)
    hidden = ((np.maximum(v @ w1 + b1, 0) @ w2 + b2) * x) @ w
    return block((v, x)), hidden


def deviation(x):
    return np.sqrt(((x - x.mean(axis=1, keepdims=True)) ** 2).mean(axis=1, keepdims=True))


def test_mask_block():
    got, hidden = mask_block(NormPlacement.BEFORE_ACTIVATION)
    np.testing.assert_allclose(got, np.maximum(hidden / deviation(hidden), 0), rtol=1e-4, atol=1e-4)


def test_mask_block_with_its_norm_after_the_activation():
    got, hidden = mask_block(NormPlacement.AFTER_ACTIVATION)
    positive = np.maximum(hidden, 0)
    rows = (positive > 0).any(axis=1)
    expected = positive[rows] / deviation(positive[rows])
    np.testing.assert_allclose(got.numpy()[rows], expected, rtol=1e-4, atol=1e-4)
    assert rows.sum() >= 2


def test_a_mask_block_begins_near_a_plain_hidden_layer():
    block = MaskBlock(3, reduction_ratio=0.5)
    v, x = tf.fill([2, 8], 0.01), tf.ones([2, 8])
    got = block((v, x))
    plain = np.maximum(x.numpy() @ block.hidden.kernel.numpy(), 0)
    np.testing.assert_allclose(got, plain, atol=0.1)


def test_gate_with_context():
    gate = FeatureGate((4,), constant_dim=None)
    x, context = (RNG.normal(size=(3, n)).astype(np.float32) for n in (5, 2))
    gate(x, context)
    randomize(gate)
    w1, b1, w2, b2 = gate.get_weights()
    expected = x * 2 * sigmoid(np.maximum(context @ w1 + b1, 0) @ w2 + b2)
    np.testing.assert_allclose(gate(x, context), expected, rtol=1e-4, atol=1e-5)


def test_gate_with_a_constant_context_learns_all_its_weights():
    gate = FeatureGate((4,), constant_dim=2)
    x = tf.constant(RNG.normal(size=(3, 5)), tf.float32)
    gate(x)
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(gate(x) ** 2)
    gradients = tape.gradient(y, gate.trainable_weights)
    assert len(gradients) == 5
    assert all(np.abs(g.numpy()).sum() > 0 for g in gradients)


def test_bilinear_fusion():
    fusion = BilinearFusion(2)
    a, b = (RNG.normal(size=(3, n)).astype(np.float32) for n in (4, 6))
    fusion((a, b))
    randomize(fusion)
    w, w1, bias, w2 = (
        fusion.bilinear.numpy(),
        fusion.first.kernel.numpy(),
        fusion.first.bias.numpy(),
        fusion.second.kernel.numpy(),
    )
    assert w.shape == (2, 2, 3)
    expected = a @ w1 + bias + b @ w2
    for head in range(2):
        left, right = a[:, 2 * head : 2 * head + 2], b[:, 3 * head : 3 * head + 3]
        expected += np.einsum("bi,ij,bj->b", left, w[head], right)[:, None]
    np.testing.assert_allclose(fusion((a, b)), expected, rtol=1e-4, atol=1e-5)
