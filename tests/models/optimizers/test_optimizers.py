"""Row-sparse optimizers: hand-made numbers, equality with the dense ones, rows at rest stay put."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.keras2 import keras
from models.optimizers import (
    CowClip,
    FusedAdam,
    LazyAdam,
    RowSparseAdagrad,
    RowSparseFtrl,
    RowwiseAdagrad,
)

ROWS, DIM = 5, 3


def slices(values, rows) -> tf.IndexedSlices:
    return tf.IndexedSlices(
        tf.constant(values, tf.float32), tf.constant(rows, tf.int32), tf.constant([ROWS, DIM])
    )


def table(seed: int = 0) -> tf.Variable:
    return tf.Variable(np.random.default_rng(seed).normal(size=(ROWS, DIM)).astype(np.float32))


def step(optimizer, variable, gradient, compiled: bool = True) -> None:
    optimizer.build([variable])

    def apply():
        optimizer.apply_gradients([(gradient, variable)])

    (tf.function(apply) if compiled else apply)()


DENSE_TWINS = {
    "adagrad": (
        lambda: RowSparseAdagrad(0.05, initial_accumulator=0.1),
        lambda: keras.optimizers.Adagrad(0.05, jit_compile=False),
    ),
    "lazy_adam": (
        lambda: LazyAdam(0.05),
        lambda: keras.optimizers.Adam(0.05, jit_compile=False),
    ),
    "ftrl": (
        lambda: RowSparseFtrl(0.05, l1=0.01, initial_accumulator=0.1),
        lambda: keras.optimizers.Ftrl(0.05, l1_regularization_strength=0.01, jit_compile=False),
    ),
}


@pytest.mark.parametrize("name", DENSE_TWINS)
@pytest.mark.parametrize("compiled", [True, False])
def test_equal_to_the_dense_optimizer_where_every_row_is_touched(name, compiled):
    make_sparse, make_dense = DENSE_TWINS[name]
    sparse, dense, a, b = make_sparse(), make_dense(), table(), table()
    rng = np.random.default_rng(1)
    for _ in range(20):
        values = rng.normal(size=(ROWS + 2, DIM)).astype(np.float32)
        rows = np.concatenate([rng.permutation(ROWS), [1, 4]])  # two rows come twice
        summed = np.zeros((ROWS, DIM), np.float32)
        np.add.at(summed, rows, values)
        step(sparse, a, slices(values, rows), compiled)
        step(dense, b, tf.constant(summed), compiled)
    np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


@pytest.mark.parametrize("name", DENSE_TWINS)
def test_a_dense_gradient_gives_the_dense_step(name):
    make_sparse, make_dense = DENSE_TWINS[name]
    a, b = table(), table()
    gradient = tf.constant(np.random.default_rng(2).normal(size=(ROWS, DIM)).astype(np.float32))
    step(make_sparse(), a, gradient)
    step(make_dense(), b, gradient)
    np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "schedule", [0.05, keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)]
)
def test_fused_adam_equals_that_of_keras(schedule):
    fused, plain, a, b = (
        FusedAdam(schedule),
        keras.optimizers.Adam(schedule, jit_compile=False),
        table(),
        table(),
    )
    rng = np.random.default_rng(1)
    for _ in range(20):
        gradient = tf.constant(rng.normal(size=(ROWS, DIM)).astype(np.float32))
        step(fused, a, gradient)
        step(plain, b, gradient)
    # The kernel takes 1 - beta_2 in float32, which is off by 5e-5 of itself.
    np.testing.assert_allclose(a.numpy(), b.numpy(), atol=2e-5)


def test_adagrad_equals_the_dense_one_where_rows_rest():
    make_sparse, make_dense = DENSE_TWINS["adagrad"]
    sparse, dense, a, b = make_sparse(), make_dense(), table(), table()
    rng = np.random.default_rng(3)
    for _ in range(10):
        gradient = np.zeros((ROWS, DIM), np.float32)
        touched = rng.choice(ROWS, 2, replace=False)
        gradient[touched] = rng.normal(size=(2, DIM))
        step(sparse, a, slices(gradient[touched], touched))
        step(dense, b, tf.constant(gradient))
    np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


def test_adagrad_by_hand():
    variable = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    gradient = tf.IndexedSlices(tf.constant([[3.0, 0.0]]), [1], [2, 2])
    step(RowSparseAdagrad(0.5, initial_accumulator=7.0), variable, gradient)
    # a = 7 + 9 = 16; 3 - .5 * 3 / 4
    np.testing.assert_allclose(variable.numpy(), [[1, 2], [2.625, 4]], rtol=1e-6)


def test_rowwise_adagrad_by_hand():
    variable = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    gradient = tf.IndexedSlices(tf.constant([[3.0, 1.0], [1.0, 3.0]]), [1, 1], [2, 2])
    optimizer = RowwiseAdagrad(0.5, initial_accumulator=9.0)
    step(optimizer, variable, gradient)
    # summed gradient (4, 4); a = 9 + (16 + 16) / 2 = 25; 3 - .5 * 4 / 5
    np.testing.assert_allclose(variable.numpy(), [[1, 2], [2.6, 3.6]], rtol=1e-6)
    accumulator = optimizer.variables[-1]
    np.testing.assert_allclose(accumulator.numpy(), [9, 25])


def test_lazy_adam_by_hand_at_its_first_step():
    # at step 1 the bias corrections cancel: m/(sqrt(v)) = sign(g), so a row moves by lr
    variable = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    gradient = tf.IndexedSlices(tf.constant([[5.0, -0.1]]), [0], [2, 2])
    step(LazyAdam(0.25), variable, gradient)
    np.testing.assert_allclose(variable.numpy(), [[0.75, 2.25], [3, 4]], atol=1e-5)


@pytest.mark.parametrize(
    "make", [*(twins[0] for twins in DENSE_TWINS.values()), lambda: RowwiseAdagrad(0.05)]
)
@settings(max_examples=10, deadline=None)
@given(rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=8))
def test_rows_that_a_batch_does_not_touch_keep_every_bit(make, rows):
    optimizer, variable = make(), table()
    step(optimizer, variable, slices(np.ones((ROWS, DIM)), range(ROWS)), compiled=False)
    before = [v.numpy() for v in [variable, *optimizer.variables[2:]]]
    step(optimizer, variable, slices(np.ones((len(rows), DIM)), rows), compiled=False)
    after = [v.numpy() for v in [variable, *optimizer.variables[2:]]]
    rest = sorted(set(range(ROWS)) - set(rows))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[rest], new[rest])
    assert not np.array_equal(before[0][rows], after[0][rows])


def test_l2_pulls_touched_rows_once_however_often_they_occur():
    variable = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    gradient = tf.IndexedSlices(tf.zeros([3, 2]), [1, 1, 1], [2, 2])
    step(RowSparseFtrl(0.0625, l2=0.5, initial_accumulator=1.0), variable, gradient)
    # g = .5 * (3, 4): no other row moves
    np.testing.assert_array_equal(variable.numpy()[0], [1, 2])
    moved = variable.numpy()[1]
    again = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    step(
        RowSparseFtrl(0.0625, initial_accumulator=1.0),
        again,
        tf.IndexedSlices(tf.constant([[1.5, 2.0]]), [1], [2, 2]),
    )
    np.testing.assert_allclose(moved, again.numpy()[1], rtol=1e-6)


def test_cowclip_by_hand():
    gradient = tf.constant([[3.0, 4.0], [0.3, 0.4], [3.0, 4.0], [0.0, 0.0]])
    rows = tf.constant([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0], [1.0, 0.0]])
    clipped = CowClip(ratio=0.5, bound=0.1)(gradient, rows, tf.constant([2, 1, 3, 1]))
    # norms 5, .5, 5, 0; limits 2 * .5, 1 * .5, 3 * .1, 1 * .5
    expected = [[0.6, 0.8], [0.3, 0.4], [0.18, 0.24], [0, 0]]
    np.testing.assert_allclose(clipped, expected, rtol=1e-5)


def test_cowclip_counts_occurrences_in_the_batch():
    one, three = (tf.Variable([[1.0, 0.0]]) for _ in range(2))
    clip = CowClip(ratio=0.1, bound=1e-5)
    big = tf.constant([[30.0, 0.0]])
    step(
        RowSparseAdagrad(1.0, initial_accumulator=1e6, clip=clip),
        one,
        tf.IndexedSlices(big, [0], [1, 2]),
    )
    step(
        RowSparseAdagrad(1.0, initial_accumulator=1e6, clip=clip),
        three,
        tf.IndexedSlices(tf.concat([big] * 3, axis=0), [0, 0, 0], [1, 2]),
    )
    moved = [1 - v.numpy()[0, 0] for v in (one, three)]
    np.testing.assert_allclose(moved, [0.1 / 1e3, 0.3 / 1e3], rtol=1e-2)


@pytest.mark.parametrize(
    "optimizer",
    [
        RowSparseAdagrad(0.3, initial_accumulator=0.5, l2=0.1),
        RowwiseAdagrad(0.3, epsilon=1e-3, clip=CowClip(2.0, 0.5)),
        LazyAdam(0.3, beta_1=0.8, gradient_scale=0.25),
        RowSparseFtrl(0.3, l1=0.7),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_config_round_trip(optimizer):
    again = type(optimizer).from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


def test_adagrad_refuses_an_accumulator_of_zero():
    with pytest.raises(ValueError, match="must be positive; got 0"):
        RowSparseAdagrad(0.1, initial_accumulator=0.0)
