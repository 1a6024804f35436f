"""The image network on pictures small enough to follow by hand."""

import numpy as np
import pytest
import tensorflow as tf

from models.layers.image_network import ImageNetwork, layer_sizes
from models.norms.base import NORMS
from models.norms.instance import InstanceNormConfig


def with_identity_weights(network, pixels):
    network(pixels)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1  # a convolution that copies
    convolution = network.convolutions[0]
    convolution.set_weights([kernel, np.zeros(1)] if convolution.use_bias else [kernel])
    network.embedding.set_weights([np.ones((1, 1)), np.array([0.5])])
    return network(pixels).numpy()


def test_scales_pools_and_embeds():
    pixels = tf.constant([[0, 255, 255, 255], [0, 0, 0, 0]], tf.uint8)[tf.newaxis, :, :, tf.newaxis]
    # -1 and 1; ReLU: 0 and 1; 2x2 maxima: 1 and 1; mean 1; + 0.5
    np.testing.assert_allclose(with_identity_weights(ImageNetwork((1,), 1), pixels), [[1.5]])


def test_the_norm_is_applied_to_the_whole_picture():
    norm = InstanceNormConfig(epsilon=1e-9)
    network = ImageNetwork((1,), 1, norm=lambda: norm.make_layer("image"))
    pixels = tf.constant([[255], [0]], tf.uint8)[tf.newaxis, :, :, tf.newaxis]
    # 1 and -1 are their own normalization; ReLU 1 and 0; too narrow to pool; mean 0.5; + 0.5
    np.testing.assert_allclose(with_identity_weights(network, pixels), [[1.0]], atol=1e-6)


@pytest.mark.parametrize("height, width", [(28, 28), (1, 1), (3, 9), (2, 1)])
def test_any_picture_size_goes_through_as_many_layers_as_asked(height, width):
    network = ImageNetwork((2, 3, 4, 5, 6, 7), 8)
    assert network(tf.zeros([2, height, width, 3], tf.uint8)).shape == (2, 8)


def test_layer_sizes():
    assert layer_sizes(28, 20, 4) == [(28, 20), (14, 10), (7, 5), (3, 2)]
    assert layer_sizes(1, 8, 2) == [(1, 8), (1, 8)]


@pytest.mark.parametrize(
    "norm, has_bias", [("batch", False), ("instance", False), ("group", True), ("layer", True)]
)
def test_a_bias_that_the_norm_removes_does_not_exist(norm, has_bias):
    network = ImageNetwork((8, 16), 4, norm=lambda: NORMS[norm]().make_layer("image"))
    network(tf.zeros([1, 8, 8, 3], tf.uint8))
    assert [c.use_bias for c in network.convolutions] == [has_bias] * 2
