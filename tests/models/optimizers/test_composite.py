"""The composite routes, clips by the true global norm, checkpoints, and follows schedules."""

from __future__ import annotations

import math
import types

import numpy as np
import pytest
import tensorflow as tf

from models.config.train import parse_train_config
from models.keras2 import keras
from models.optimizers import (
    CompositeOptimizer,
    LazyAdam,
    LearningRate,
    RowSparseAdagrad,
    make_optimizer,
    scale_rates,
)
from models.optimizers.composite import clip_by_global_norm


def variables():
    return [tf.Variable(tf.ones([2, 2])), tf.Variable(tf.ones([4, 2]))]


def gradients(scale: float = 1.0):
    rows = tf.IndexedSlices(scale * tf.constant([[1.0, 2.0], [3.0, 4.0]]), [3, 3], [4, 2])
    return [scale * tf.constant([[1.0, 2.0], [3.0, 4.0]]), rows]


def test_each_gradient_goes_to_the_optimizer_of_its_variable():
    dense, rows = variables()
    composite = CompositeOptimizer(
        keras.optimizers.SGD(0.1), RowSparseAdagrad(0.1, initial_accumulator=0.1)
    )
    composite.build([dense, rows], [rows])
    composite.apply_gradients(gradients(), [dense, rows])
    np.testing.assert_allclose(dense.numpy(), [[0.9, 0.8], [0.7, 0.6]], rtol=1e-6)
    np.testing.assert_array_equal(rows.numpy()[:3], np.ones((3, 2)))
    moved = 1 - np.array([4, 6]) * 0.1 / np.sqrt(0.1 + np.array([16, 36]))
    np.testing.assert_allclose(rows.numpy()[3], moved, rtol=1e-6)


def test_a_model_without_tables_trains():
    dense = tf.Variable([1.0])
    composite = CompositeOptimizer(
        keras.optimizers.SGD(0.5), RowSparseAdagrad(0.1, initial_accumulator=0.1)
    )
    composite.build([dense], [])
    composite.apply_gradients([tf.constant([1.0])], [dense])
    assert dense.numpy() == [0.5]


def test_the_global_norm_sums_duplicate_rows_first():
    # dense: 1+4+9+16 = 30; rows: (4, 6) -> 52; norm sqrt(82)
    clipped = clip_by_global_norm(gradients(), 1.0)
    np.testing.assert_allclose(clipped[0], np.array([[1, 2], [3, 4]]) / math.sqrt(82), rtol=1e-6)
    np.testing.assert_allclose(clipped[1].values, np.array([[4, 6]]) / math.sqrt(82), rtol=1e-6)
    np.testing.assert_array_equal(clipped[1].indices, [3])
    untouched = clip_by_global_norm(gradients(), 100.0)
    np.testing.assert_allclose(untouched[1].values, [[4, 6]], rtol=1e-6)


def test_a_checkpoint_holds_both_optimizers(tmp_path):
    def trained(steps: int):
        weights = variables()
        composite = CompositeOptimizer(keras.optimizers.Adam(0.1), LazyAdam(0.1))
        composite.build(weights, weights[1:])
        for index in range(steps):
            composite.apply_gradients(gradients(1.0 + index), weights)
        return weights, composite

    weights, composite = trained(3)
    objects = {"weights": weights, "optimizer": composite}
    path = tf.train.Checkpoint(**objects).write(str(tmp_path / "c"))
    fresh, other = trained(0)
    tf.train.Checkpoint(weights=fresh, optimizer=other).read(path).assert_consumed()
    for optimizer, given in ((composite, weights), (other, fresh)):
        optimizer.apply_gradients(gradients(), given)
    for a, b in zip(weights, fresh, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize(
    "rule, dense, embedding, l2",
    [("none", 1, 1, 1), ("linear", 16, 16, 1), ("sqrt", 4, 4, 4), ("cowclip", 4, 1, 16)],
)
def test_rates_follow_the_batch_by_the_named_rule(rule, dense, embedding, l2):
    config = parse_train_config(
        {
            "global_batch_size": 8192,
            "learning_rate": 0.001,
            "embedding_learning_rate": 0.02,
            "embedding_l2": 1e-5,
            "scaling": {"rule": rule, "base_batch_size": 512, "warmup_epochs": 0.5},
        }
    )
    rates = scale_rates(config, steps_per_epoch=11)
    assert rates.dense == pytest.approx(0.001 * dense)
    assert rates.embedding == pytest.approx(0.02 * embedding)
    assert rates.embedding_l2 == pytest.approx(1e-5 * l2)
    assert rates.warmup_steps == (0 if rule == "none" else 6)


def test_schedules_by_hand():
    rate = LearningRate(8.0, kind="cosine", warmup_steps=4, total_steps=8, final_factor=0.5)
    got = [float(rate(tf.constant(step))) for step in (0, 1, 3, 4, 6, 8, 99)]
    np.testing.assert_allclose(got, [2, 4, 8, 8, 6, 4, 4], rtol=1e-6)
    linear = LearningRate(8.0, kind="linear", total_steps=4)
    np.testing.assert_allclose([float(linear(tf.constant(s))) for s in range(5)], [8, 6, 4, 2, 0])
    assert LearningRate.from_config(rate.get_config()).get_config() == rate.get_config()


@pytest.mark.parametrize("name", ["adagrad", "rowwise_adagrad", "lazy_adam", "ftrl", "adam"])
def test_every_configured_optimizer_moves_both_kinds_of_variable(name):
    config = parse_train_config({"embedding_optimizer": name, "schedule": {"kind": "cosine"}})
    weights = variables()
    model = types.SimpleNamespace(trainable_variables=weights, sparse_variables=weights[1:])
    composite = make_optimizer(config, 10, model, tf.distribute.get_strategy())
    tf.function(lambda: composite.apply_gradients(gradients(), weights))()
    assert (weights[0].numpy() != 1).all()
    assert (weights[1].numpy()[3] != 1).all()
    np.testing.assert_array_equal(weights[1].numpy()[:3], np.ones((3, 2)))


def test_the_configured_bound_clips_the_global_norm():
    def moved(bound: float | None) -> np.ndarray:
        weights = variables()
        model = types.SimpleNamespace(trainable_variables=weights, sparse_variables=weights[1:])
        raw = {"optimizer": "sgd", "learning_rate": 1.0, "gradient_clip_norm": bound}
        composite = make_optimizer(parse_train_config(raw), 10, model, tf.distribute.get_strategy())
        composite.apply_gradients(gradients(), weights)
        return 1 - weights[0].numpy()

    np.testing.assert_allclose(moved(None), [[1, 2], [3, 4]], rtol=1e-6)
    np.testing.assert_allclose(
        moved(0.5), 0.5 / math.sqrt(82) * np.array([[1, 2], [3, 4]]), rtol=1e-5
    )


def test_the_loss_scale_doubles_after_2000_good_steps_and_halves_after_a_bad_one():
    composite = CompositeOptimizer(keras.optimizers.SGD(0.1), LazyAdam(0.1), loss_scaling=True)

    @tf.function
    def adapt(steps: tf.Tensor, finite: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(steps):
            composite.adapt_scale(finite)
        return composite.scale_of_loss()

    def after(steps: int, finite: bool = True) -> float:
        return float(adapt(tf.constant(steps), tf.constant(finite)))

    first = 2.0**15
    assert after(1) == first
    assert after(1998) == first
    assert after(1) == 2 * first
    assert after(1999) == 2 * first  # the count began anew
    assert after(1) == 4 * first
    assert after(1500) == 4 * first
    assert after(1, finite=False) == 2 * first
    assert after(1999) == 2 * first  # after an overflow too
    assert after(1) == 4 * first
    assert after(2000 * 7) == 2.0**24
    assert after(2000) == 2.0**24  # never above this
    assert after(30, finite=False) == 1.0  # nor below 1


def test_without_loss_scaling_the_scale_is_one():
    composite = CompositeOptimizer(keras.optimizers.SGD(0.1), LazyAdam(0.1))
    composite.adapt_scale(tf.constant(False))
    assert not composite.is_loss_scaled
    assert float(composite.scale_of_loss()) == 1.0


def test_the_scale_is_taken_out_of_dense_gradients_and_of_rows():
    composite = CompositeOptimizer(keras.optimizers.SGD(0.1), LazyAdam(0.1), loss_scaling=True)
    scale = float(composite.scale_of_loss())
    dense, none, rows = composite.reduce_gradients(
        [scale * gradients()[0], None, gradients(scale)[1]]
    )
    assert none is None
    np.testing.assert_array_equal(dense, gradients()[0])
    np.testing.assert_array_equal(rows.values, gradients()[1].values)
    np.testing.assert_array_equal(rows.indices, [3, 3])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_seen_wherever_it_is(bad):
    dense, rows = gradients()
    assert bool(CompositeOptimizer.all_finite([dense, None, rows]))
    assert not bool(CompositeOptimizer.all_finite([dense, tf.constant([1.0, bad])]))
    spoilt = tf.IndexedSlices(tf.constant([[1.0, bad]]), [0], [4, 2])
    assert not bool(CompositeOptimizer.all_finite([spoilt, None, dense]))


def test_host_tables_get_the_sum_of_all_replicas_rows_in_one_step():
    dense, rows = variables()
    composite = CompositeOptimizer(
        keras.optimizers.SGD(0.1), RowSparseAdagrad(0.1, initial_accumulator=0.1)
    )
    composite.build([dense], [])
    assert not composite.has_host_tables
    composite.build_host_tables([dense, rows], [rows])
    assert composite.has_host_tables
    mirrored, host = composite.split_host(gradients(), [dense, rows])
    assert [g is None for g in (*mirrored, *host)] == [False, True, True, False]
    second = tf.IndexedSlices(tf.constant([[5.0, 6.0]]), [0], [4, 2])
    composite.apply_to_host([host, [None, second]], [dense, rows])
    expected = np.ones((4, 2))
    expected[3] -= np.array([4, 6]) * 0.1 / np.sqrt(0.1 + np.array([16, 36]))
    expected[0] -= np.array([5, 6]) * 0.1 / np.sqrt(0.1 + np.array([25, 36]))
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(dense.numpy(), np.ones((2, 2)))
    composite.apply_to_host([[None, None]], [dense, rows])  # no rows in this step
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-6)
