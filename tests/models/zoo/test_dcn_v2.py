"""DCN-v2 against its formula in NumPy, parallel and stacked."""

import numpy as np
import pytest

from models.config.model import parse_model_config
from models.zoo import build_model
from pipeline.errors import ConfigError


def build(spec, **cross):
    raw = {"name": "dcn_v2", "norm": "none", "hidden_units": [5], "embedding_dim": 4}
    return build_model(parse_model_config({**raw, "cross": {"num_layers": 2, **cross}}), spec)


def pieces(model, batch):
    x0 = model.features(batch).numpy().astype(np.float64)
    w1, b1, w2, b2 = model.cross_network.get_weights()
    x1 = x0 * (x0 @ w1 + b1) + x0
    x2 = x0 * (x1 @ w2 + b2) + x1
    kernel, bias = model.mlp.get_weights()
    head_kernel, head_bias = model.head.get_weights()
    return x0, x2, lambda x: np.maximum(x @ kernel + bias, 0), lambda x: x @ head_kernel + head_bias


def test_parallel_is_the_default(spec, batch):
    model = build(spec)
    x0, crossed, deep, head = pieces(model, batch)
    expected = head(np.concatenate([crossed, deep(x0)], axis=1))[:, 0]
    np.testing.assert_allclose(model(batch), expected, atol=1e-5)


def test_stacked(spec, batch):
    model = build(spec, structure="stacked")
    _, crossed, deep, head = pieces(model, batch)
    np.testing.assert_allclose(model(batch), head(deep(crossed))[:, 0], atol=1e-5)


def test_low_rank_and_mixture_have_fewer_weights(spec):
    width = 2 + 5 * 4
    full, low = build(spec), build(spec, projection_dim=3)
    assert full.cross_network.count_params() == 2 * (width * width + width)
    assert low.cross_network.count_params() == 2 * (2 * 3 * width + width)
    mixture = build(spec, projection_dim=3, num_experts=2)
    per_expert = 2 * 3 * width + 3 * 3
    assert mixture.cross_network.count_params() == 2 * (2 * per_expert + width + 2 * (width + 1))


def test_a_rank_that_saves_nothing_is_refused(spec):
    with pytest.raises(ConfigError, match=r"projection_dim=22, input width=22.*Try.*=5"):
        build(spec, projection_dim=22)


def test_without_hidden_units_the_cross_network_stands_alone(spec, batch):
    raw = {"name": "dcn_v2", "norm": "none", "hidden_units": []}
    model = build_model(parse_model_config(raw), spec)
    assert model.head.kernel.shape[0] == 2 + 5 * 16
    assert model(batch).shape == (6,)
