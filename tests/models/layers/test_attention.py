"""AutoInt's self-attention and DSTN's sums of ads, against the papers' formulas."""

import numpy as np
import pytest
import tensorflow as tf

from models.layers.ad_attention import MAX_INTERACTIVE_SCORE, AdAggregation
from models.layers.self_attention import FieldSelfAttention
from models.norms.base import NormPlacement
from models.norms.rms import RmsNormConfig

RNG = np.random.default_rng(5)
FIELDS = RNG.normal(size=(3, 4, 5)).astype(np.float32)  # [batch, fields, dim]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention_in_numpy(layer, fields, heads, dim):
    qkv = layer.query_key_value.kernel.numpy().reshape(fields.shape[2], 3, heads, dim)
    out = np.zeros((*fields.shape[:2], heads * dim))
    for b, row in enumerate(fields):
        for h in range(heads):
            query, key, value = (row @ qkv[:, i, h] for i in range(3))
            out[b, :, h * dim : (h + 1) * dim] = softmax(query @ key.T) @ value
    return out


@pytest.mark.parametrize("residual", [True, False])
def test_self_attention(residual):
    layer = FieldSelfAttention(2, 3, residual=residual)
    layer(FIELDS)
    x = attention_in_numpy(layer, FIELDS, heads=2, dim=3)
    if residual:
        x += FIELDS @ layer.residual.kernel.numpy()
    np.testing.assert_allclose(layer(FIELDS), np.maximum(x, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("placement", list(NormPlacement))
def test_self_attention_with_a_norm(placement):
    norm = RmsNormConfig(epsilon=1e-9)
    layer = FieldSelfAttention(1, 3, norm=lambda: norm.make_layer("fields"), placement=placement)
    layer(FIELDS)
    x = attention_in_numpy(layer, FIELDS, 1, 3) + FIELDS @ layer.residual.kernel.numpy()

    def rms(x):
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-9)

    first = placement is NormPlacement.BEFORE_ACTIVATION
    expected = np.maximum(rms(x), 0) if first else rms(np.maximum(x, 0))
    np.testing.assert_allclose(layer(FIELDS), expected, rtol=1e-3, atol=1e-4)


TARGET = RNG.normal(size=(3, 2)).astype(np.float32)
ADS = RNG.normal(size=(3, 4, 5)).astype(np.float32)
MASK = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)  # three ads, one, none


def aggregated(kind):
    layer = AdAggregation(kind, 6)
    layer(TARGET, ADS, MASK)
    layer.set_weights([RNG.normal(size=w.shape) * 0.3 for w in layer.get_weights()])
    return layer, layer(TARGET, ADS, MASK).numpy()


def hidden_of(layer, x):
    w, b = layer.hidden.get_weights()
    return np.maximum(x @ w + b, 0) @ layer.score.kernel.numpy()


def test_pooling_is_a_sum():
    _, got = aggregated("pooling")
    expected = [ADS[0, 0] + ADS[0, 1] + ADS[0, 2], ADS[1, 0], np.zeros(5)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_self_attention_over_the_ads_there_are():
    layer, got = aggregated("self_attention")
    weights = softmax(hidden_of(layer, ADS[0, :3])[:, 0])
    expected = [weights @ ADS[0, :3], ADS[1, 0], np.zeros(5)]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_interactive_weights_are_not_normalized():
    layer, got = aggregated("interactive")
    bias = layer.score.bias.numpy()
    expected = np.zeros((3, 5))
    for b in range(3):
        for i in np.flatnonzero(MASK[b]):
            score = hidden_of(layer, np.concatenate([TARGET[b], ADS[b, i]])) + bias
            expected[b] += np.exp(score) * ADS[b, i]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_wild_score_stays_finite():
    layer, _ = aggregated("interactive")
    layer.score.bias.assign([1e4])
    got = layer(TARGET, ADS, MASK).numpy()
    np.testing.assert_allclose(got[1], np.exp(MAX_INTERACTIVE_SCORE) * ADS[1, 0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["pooling", "self_attention", "interactive"])
def test_padding_has_no_influence(kind):
    layer, got = aggregated(kind)
    other = np.where(MASK[:, :, None], ADS, 77.0).astype(np.float32)
    np.testing.assert_allclose(layer(TARGET, other, MASK), got, rtol=1e-5)


@pytest.mark.parametrize("kind", ["self_attention", "interactive"])
def test_gradients_are_finite_without_any_ad(kind):
    layer, _ = aggregated(kind)
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(layer(TARGET, ADS, np.zeros_like(MASK)))
    for gradient in tape.gradient(y, layer.trainable_weights):
        assert np.isfinite(gradient).all()
