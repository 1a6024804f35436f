"""Loss values by hand, the probability that each one's minimiser means, and safe gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config.train import BinaryCrossEntropyConfig, FocalConfig, PosWeightConfig
from models.losses import (
    ClickLoss,
    binary_cross_entropy,
    focal_loss,
    pos_weighted_cross_entropy,
    resolve_loss,
)
from pipeline.errors import ConfigError

LABEL = tf.constant([1.0, 0.0])
LOGITS = tf.constant([math.log(3.0), math.log(3.0)])  # p = 3/4


def test_binary_cross_entropy_by_hand():
    values = binary_cross_entropy(LABEL, LOGITS)
    np.testing.assert_allclose(values, [math.log(4 / 3), math.log(4)], rtol=1e-6)


def test_pos_weight_multiplies_clicks_only():
    values = pos_weighted_cross_entropy(LABEL, LOGITS, 5.0)
    np.testing.assert_allclose(values, [5 * math.log(4 / 3), math.log(4)], rtol=1e-6)


def test_focal_by_hand():
    # click: a (1-p)^2 (-ln p) = .25 * 1/16 * ln(4/3); other: .75 * (3/4)^2 * ln 4
    values = focal_loss(LABEL, LOGITS, alpha=0.25, gamma=2.0)
    expected = [0.25 / 16 * math.log(4 / 3), 0.75 * 9 / 16 * math.log(4)]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    logit=st.floats(-200, 200),
    label=st.sampled_from([0.0, 1.0]),
    gamma=st.floats(0, 5),
)
def test_focal_and_its_gradient_are_finite_at_any_logit(logit, label, gamma):
    logits = tf.constant([logit], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = focal_loss(tf.constant([label]), logits, 0.25, gamma)
    assert np.isfinite(value.numpy()).all()
    assert np.isfinite(tape.gradient(value, logits).numpy()).all()


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_the_minimiser_of_pos_weight_is_log_odds_plus_log_weight(rate):
    grid = np.linspace(-8, 8, 16001).astype(np.float32)
    clicks = pos_weighted_cross_entropy(tf.ones_like(grid), grid, 7.0).numpy()
    others = pos_weighted_cross_entropy(tf.zeros_like(grid), grid, 7.0).numpy()
    best = grid[np.argmin(rate * clicks.astype(float) + (1 - rate) * others)]
    assert best == pytest.approx(math.log(rate / (1 - rate)) + math.log(7.0), abs=0.02)


def test_balanced_is_the_odds_against_a_click():
    resolved = resolve_loss(PosWeightConfig(), 0.02)
    assert resolved == PosWeightConfig(pos_weight=49.0)
    assert resolve_loss(FocalConfig(), 0.02) == FocalConfig()
    with pytest.raises(ConfigError, match="label rate 0"):
        resolve_loss(PosWeightConfig(), 0.0)


def test_unresolved_balance_cannot_become_a_loss():
    with pytest.raises(ConfigError, match="resolve_loss"):
        ClickLoss(PosWeightConfig())


@pytest.mark.parametrize("config", [BinaryCrossEntropyConfig(), PosWeightConfig(pos_weight=3.0)])
def test_the_ranking_task_sums_weighted_losses(config):
    task = tfrs.tasks.Ranking(loss=ClickLoss(config))
    loss = task(labels=LABEL, predictions=LOGITS, sample_weight=tf.constant([2.0, 0.5]))
    click = math.log(4 / 3) * (3 if config.kind == "pos_weight" else 1)
    assert float(loss) == pytest.approx(2 * click + 0.5 * math.log(4), rel=1e-6)


@pytest.mark.parametrize(
    "config", [BinaryCrossEntropyConfig(), PosWeightConfig(pos_weight=2.5), FocalConfig(gamma=1.5)]
)
def test_config_round_trip(config):
    loss = ClickLoss(config, reduction="none")
    again = ClickLoss.from_config(loss.get_config())
    assert again.config == config
    np.testing.assert_array_equal(loss(LABEL, LOGITS), again(LABEL, LOGITS))
    assert again(LABEL, LOGITS).shape == (2,)
