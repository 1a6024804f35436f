"""The parity checks of a run, one function each: what was measured, the bar, whether it holds.

Bars are absolute differences of logits. A check without a bar is reported, not judged: that a model
with batch statistics scores a row differently in other company is a property of it, and the gate in
`clickparity export` asks whether the config accepts the measured number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from models.zoo.base import CTRModel

__all__ = [
    "BATCH_SIZES",
    "LOGIT_BAR",
    "Check",
    "batch_served",
    "batch_trained",
    "frozen_batch_statistics",
    "mode",
]

LOGIT_BAR = 1e-5
BATCH_SIZES = (2, 7, 64, 512, 1000)
_Encoded = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: as DESIGN tables it.
        says: what was compared, in a line.
        value: the largest absolute difference (of logits; of tensor elements that differ, for transform).
        bar: what `value` may be at most; None: reported only.
        details: further figures, by name.
    """

    name: str
    says: str
    value: float
    bar: float | None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def passed(self) -> bool | None:
        """Whether the bar holds; None without a bar. NaN passes no bar."""
        return None if self.bar is None else bool(self.value <= self.bar)

    def to_json(self) -> dict[str, Any]:
        """Plain values for parity.json; what is not finite is written as text."""
        return {**_json_values(dataclasses.asdict(self)), "passed": self.passed}


def _json_values(value: Any) -> Any:
    """The same with every number that strict JSON cannot say as text ("inf")."""
    if isinstance(value, dict):
        return {key: _json_values(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _largest(a: np.ndarray, b: np.ndarray) -> float:
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


def _logit_function(model: CTRModel, training: bool) -> Callable[[_Encoded], np.ndarray]:
    """Encoded tensors -> logits float32 [n], traced once for every batch size."""

    @tf.function(reduce_retracing=True)
    def run(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return model(inputs, training=training)

    def call(encoded: _Encoded) -> np.ndarray:
        inputs = {k: v for k, v in encoded.items() if k not in ("label", "weight", "carry")}
        return np.asarray(run({k: tf.constant(v) for k, v in inputs.items()}))

    return call


def _take(encoded: _Encoded, index: np.ndarray) -> dict[str, np.ndarray]:
    return {key: values[index] for key, values in encoded.items()}


def _in_batches(
    logits_of: Callable[[_Encoded], np.ndarray], encoded: _Encoded, size: int, seed: int
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
        logits = logits_of(_take(padded, np.arange(start, start + size)))
        rows = order[start : start + size]
        found[rows] = logits[: len(rows)]
    return found


def mode(model: CTRModel, encoded: _Encoded) -> Check:
    """Training mode against inference mode on the same batch, dropout off, weights frozen."""
    with frozen_batch_statistics(model):
        trained = _logit_function(model, training=True)(encoded)
        served = _logit_function(model, training=False)(encoded)
    difference = np.abs(trained - served)
    return Check(
        "mode",
        f"training=True against training=False, the same {len(served)} rows",
        _largest(trained, served),
        None if model.has_batch_statistics else 0.0,
        {"mean": float(difference.mean()), "rows": len(served)},
    )


def batch_served(model: CTRModel, encoded: _Encoded, *, alone: int = 128, seed: int = 0) -> Check:
    """A row alone against the same row inside shuffled, padded batches; inference mode."""
    logits_of = _logit_function(model, training=False)
    by_size = _batch_gaps(logits_of, encoded, alone, seed)
    return Check(
        "batch, served",
        "a row alone against the row in batches, inference mode",
        max(by_size.values()),
        LOGIT_BAR,
        {"by_batch_size": by_size},
    )


def batch_trained(model: CTRModel, encoded: _Encoded, *, alone: int = 128, seed: int = 0) -> Check:
    """The batch gap: the same in training mode, weights frozen.

    With batch statistics there is no "row alone" (its variance is 0), so the reference is the
    inference-mode logit: what the row will be served as.
    """
    with frozen_batch_statistics(model):
        logits_of = _logit_function(model, training=True)
        if model.has_batch_statistics:
            reference = _logit_function(model, training=False)(encoded)
            sizes = [s for s in (1, *BATCH_SIZES) if s <= len(reference)]
            by_size = {}
            for size in sizes:
                few = np.arange(min(len(reference), max(64 * size, 512)) // size * size)
                found = _in_batches(logits_of, _take(encoded, few), size, seed)
                by_size[str(size)] = _largest(found, reference[few])
            value = by_size.get("64", max(by_size.values()))
            says = "training mode, weights frozen, against the served logit; value at batch 64"
            return Check("batch, trained", says, value, None, {"by_batch_size": by_size})
        by_size = _batch_gaps(logits_of, encoded, alone, seed)
    return Check(
        "batch, trained",
        "a row alone against the row in batches, training mode, weights frozen",
        max(by_size.values()),
        LOGIT_BAR,
        {"by_batch_size": by_size},
    )


def _batch_gaps(
    logits_of: Callable[[_Encoded], np.ndarray], encoded: _Encoded, alone: int, seed: int
) -> dict[str, float]:
    """Largest difference between a row alone and the row in batches, by batch size."""
    num_rows = len(encoded["ids"])
    rows = np.arange(min(alone, num_rows))
    single = np.concatenate([logits_of(_take(encoded, np.array([i]))) for i in rows])
    gaps = {}
    for size in BATCH_SIZES:
        found = _in_batches(logits_of, encoded, size, seed)
        gaps[str(size)] = _largest(found[rows], single)
    return gaps
