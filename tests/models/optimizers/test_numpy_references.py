"""Row-sparse optimizers against the formulas of their papers, computed row by row in NumPy's float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from models.optimizers import (
    CowClip,
    LazyAdam,
    RowSparseAdagrad,
    RowSparseFtrl,
    RowSparseOptimizer,
    RowwiseAdagrad,
)

ROWS, DIM, STEPS = 6, 3, 25
Row = dict[str, np.ndarray]


def adagrad(w: np.ndarray, g: np.ndarray, state: Row, step: int) -> np.ndarray:
    """Duchi et al. 2011, with the accumulator starting at 0.1."""
    state["a"] = state.get("a", np.full(DIM, 0.1)) + g**2
    return w - 0.05 * g / np.sqrt(state["a"])


def rowwise_adagrad(w: np.ndarray, g: np.ndarray, state: Row, step: int) -> np.ndarray:
    """FBGEMM's EXACT_ROWWISE_ADAGRAD."""
    state["a"] = state.get("a", np.zeros(())) + np.mean(g**2)
    return w - 0.05 * g / (np.sqrt(state["a"]) + 1e-8)


def lazy_adam(w: np.ndarray, g: np.ndarray, state: Row, step: int) -> np.ndarray:
    """Kingma & Ba 2015, epsilon inside as in section 2's last remark; moments rest with their row."""
    state["m"] = 0.9 * state.get("m", np.zeros(DIM)) + 0.1 * g
    state["v"] = 0.999 * state.get("v", np.zeros(DIM)) + 0.001 * g**2
    rate = 0.05 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    return w - rate * state["m"] / (np.sqrt(state["v"]) + 1e-7)


def ftrl(w: np.ndarray, g: np.ndarray, state: Row, step: int) -> np.ndarray:
    """McMahan et al. 2013, algorithm 1, beta = 0, n starting at 0.1, l1 = 0.01."""
    n, z = state.get("n", np.full(DIM, 0.1)), state.get("z", np.zeros(DIM))
    sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / 0.05
    state["n"], state["z"] = n + g**2, z + g - sigma * w
    shrunk = state["z"] - np.sign(state["z"]) * 0.01
    return np.where(np.abs(state["z"]) <= 0.01, 0.0, -shrunk * 0.05 / np.sqrt(state["n"]))


FORMULAS: dict[str, tuple[Callable[..., RowSparseOptimizer], Callable[..., np.ndarray]]] = {
    "adagrad": (lambda **o: RowSparseAdagrad(0.05, initial_accumulator=0.1, **o), adagrad),
    "rowwise_adagrad": (lambda **o: RowwiseAdagrad(0.05, **o), rowwise_adagrad),
    "lazy_adam": (lambda **o: LazyAdam(0.05, **o), lazy_adam),
    "ftrl": (lambda **o: RowSparseFtrl(0.05, l1=0.01, initial_accumulator=0.1, **o), ftrl),
}


def clip_row(g: np.ndarray, w: np.ndarray, count: int) -> np.ndarray:
    """arXiv 2204.06240, algorithm 1, with r = 0.5 and zeta = 0.2."""
    bound = count * max(0.5 * np.linalg.norm(w), 0.2)
    return g * min(1.0, bound / np.linalg.norm(g))


@pytest.mark.parametrize("touched", ["every row", "some rows"])
@pytest.mark.parametrize(
    "l2, is_clipped, scale",
    [(0.0, False, 1.0), (0.1, False, 1.0), (0.1, True, 1.0), (0.1, True, 0.3)],
)
@pytest.mark.parametrize("name", FORMULAS)
def test_many_steps_equal_the_papers_formula(name, l2, is_clipped, scale, touched):
    make, formula = FORMULAS[name]
    clip = CowClip(0.5, 0.2) if is_clipped else None
    optimizer = make(l2=l2, clip=clip, gradient_scale=scale)
    rng = np.random.default_rng(4)
    expected = rng.normal(size=(ROWS, DIM)).astype(np.float32).astype(float)
    variable = tf.Variable(expected, dtype=tf.float32)
    optimizer.build([variable])
    apply = tf.function(
        lambda values, rows: optimizer.apply_gradients(
            [(tf.IndexedSlices(values, rows, tf.constant([ROWS, DIM])), variable)]
        ),
        reduce_retracing=True,
    )
    states: list[Row] = [{} for _ in range(ROWS)]
    for step in range(1, STEPS + 1):
        rows = rng.integers(0, ROWS, 5)  # duplicates among them
        if touched == "every row":
            rows = np.concatenate([rng.permutation(ROWS), rows])
        values = rng.normal(size=(len(rows), DIM)).astype(np.float32)
        apply(tf.constant(values), tf.constant(rows, tf.int32))
        for row in set(rows.tolist()):
            g = scale * values[rows == row].astype(float).sum(axis=0)
            if is_clipped:
                g = clip_row(g, expected[row], int((rows == row).sum()))
            expected[row] = formula(expected[row], g + l2 * expected[row], states[row], step)
    np.testing.assert_allclose(variable.numpy(), expected, atol=5e-6)
