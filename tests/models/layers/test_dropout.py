"""Dropout noise: a function of seed, step and replica, and of nothing else."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from models.layers.dropout import StatelessDropout

ONES = tf.ones([64, 50])


def test_scales_what_it_keeps_and_drops_the_rate():
    y = StatelessDropout(0.25, seed=3)(ONES, training=True).numpy()
    assert set(np.unique(y).round(6)) == {0.0, np.float32(1 / 0.75).round(6)}
    assert abs((y == 0).mean() - 0.25) < 0.03  # 3200 draws: 4 standard deviations


def test_is_the_identity_outside_training_and_at_rate_zero():
    for training in (False, None):
        np.testing.assert_array_equal(StatelessDropout(0.5, seed=1)(ONES, training=training), ONES)
    np.testing.assert_array_equal(StatelessDropout(0.0, seed=1)(ONES, training=True), ONES)


def test_a_step_can_be_drawn_again():
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    layer = StatelessDropout(0.5, seed=1, step=step)
    draw = tf.function(lambda: layer(ONES, training=True))
    first = draw().numpy()
    step.assign_add(1)
    assert (draw().numpy() != first).any()
    resumed = StatelessDropout(0.5, seed=1, step=tf.Variable(0, dtype=tf.int64))
    np.testing.assert_array_equal(resumed(ONES, training=True), first)


def test_seeds_differ_and_the_step_of_a_model_is_not_a_weight_of_the_layer():
    step = tf.Variable(5, dtype=tf.int64, trainable=False)
    one, two = (StatelessDropout(0.5, seed=seed, step=step) for seed in (1, 2))
    assert (one(ONES, training=True).numpy() != two(ONES, training=True).numpy()).any()
    assert one.weights == []
    assert len(StatelessDropout(0.5, seed=1).weights) == 1


def test_a_tensor_may_say_training():
    layer = StatelessDropout(0.5, seed=1)
    run = tf.function(lambda t: layer(ONES, training=t))
    np.testing.assert_array_equal(run(tf.constant(False)), ONES)
    np.testing.assert_array_equal(run(tf.constant(True)), layer(ONES, training=True))


@pytest.mark.parametrize("rate, seed", [(1.0, 0), (-0.1, 0), (0.5, -1), (0.5, 2**31)])
def test_refuses_impossible_arguments(rate, seed):
    with pytest.raises(ValueError, match="must lie in"):
        StatelessDropout(rate, seed=seed)


TWO_REPLICAS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from models.layers.dropout import StatelessDropout
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    layer = StatelessDropout(0.5, seed=1)
@tf.function
def step():
    def replica():
        y = layer(tf.ones([8, 9]), training=True)
        layer.step.assign_add(1)
        return y
    return strategy.run(replica)
first, second = (strategy.experimental_local_results(step()) for _ in range(2))
alone = layer
assert layer.step.numpy() == 2, layer.step
assert bool(tf.reduce_any(first[0] != first[1])), "replicas must draw different masks"
assert bool(tf.reduce_any(first[0] != second[0])), "steps must draw different masks"
single = StatelessDropout(0.5, seed=1)
assert bool(tf.reduce_all(single(tf.ones([8, 9]), training=True) == first[0]))
"""


def test_replicas_draw_different_masks_and_count_one_step():
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
