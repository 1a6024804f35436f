"""What every parity check does with logits: compute them, in batches or alone, and compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from models.zoo.base import CTRModel
from pipeline.records.encoded import model_inputs

__all__ = [
    "Encoded",
    "frozen_batch_statistics",
    "largest_difference",
    "logit_function",
    "logits_in_batches",
    "take_rows",
]

Encoded = Mapping[str, np.ndarray]
"""Encoded rows by key, see `pipeline.records.encoded`."""


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest absolute difference; infinite where either side is not a finite number.

    Two NaN are no agreement: a model whose weights are NaN must not pass by being wrong alike.
    """
    if len(a) != len(b):
        return float("inf")
    finite = np.isfinite(a) & np.isfinite(b)
    difference = np.abs(np.where(finite, a, 0).astype(np.float64) - np.where(finite, b, 0))
    return float(np.max(np.where(finite, difference, np.inf), initial=0.0))


class frozen_batch_statistics:  # noqa: N801 - used as a context manager
    """Restores a model's non-trainable variables (moving statistics) on leaving."""

    def __init__(self, model: CTRModel) -> None:
        self._model = model

    def __enter__(self) -> None:
        self._values = [v.numpy() for v in self._model.non_trainable_variables]

    def __exit__(self, *_: object) -> None:
        for variable, value in zip(self._model.non_trainable_variables, self._values, strict=True):
            variable.assign(value)


def logit_function(model: CTRModel, training: bool) -> Callable[[Encoded], np.ndarray]:
    """Encoded tensors -> logits float32 [n], traced once for every batch size."""

    @tf.function(reduce_retracing=True)
    def run(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return model(inputs, training=training)

    def call(encoded: Encoded) -> np.ndarray:
        return np.asarray(run({k: tf.constant(v) for k, v in model_inputs(encoded).items()}))

    return call


def take_rows(encoded: Encoded, index: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of these numbers, in this order."""
    return {key: values[index] for key, values in encoded.items()}


def logits_in_batches(
    logits_of: Callable[[Encoded], np.ndarray], encoded: Encoded, size: int, seed: int
) -> np.ndarray:
    """Logits of every row from shuffled batches of `size`; the last one is padded with missing rows."""
    num_rows = len(encoded["ids"])
    order = np.random.default_rng([seed, size]).permutation(num_rows)
    padding = -num_rows % size
    padded = {
        key: np.concatenate([v[order], np.zeros((padding, *v.shape[1:]), v.dtype)])
        for key, v in encoded.items()
    }
    found = np.empty(num_rows, np.float32)
    for start in range(0, num_rows, size):
        logits = logits_of(take_rows(padded, np.arange(start, start + size)))
        rows = order[start : start + size]
        found[rows] = logits[: len(rows)]
    return found
