"""The parity checks of a run, one function each: what was measured, the bar, whether it holds.

Bars are absolute differences of logits. A check without a bar is reported, not judged: that a model
with batch statistics scores a row differently in another batch is a property of it, and the gate in
`clickparity export` asks whether the config accepts the measured number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.zoo.base import CTRModel
from serving.parity.logits import (
    Encoded,
    frozen_batch_statistics,
    largest_difference,
    logit_function,
    logits_in_batches,
    take_rows,
)
from serving.parity.outcome import Check

__all__ = [
    "BATCH_SIZES",
    "LOGIT_BAR",
    "Check",
    "batch_served",
    "batch_trained",
    "mode",
]

LOGIT_BAR = 1e-5
BATCH_SIZES = (2, 7, 64, 512, 1000)


def mode(model: CTRModel, encoded: Encoded) -> Check:
    """Training mode against inference mode on the same batch, dropout off, weights frozen."""
    with frozen_batch_statistics(model):
        trained = logit_function(model, training=True)(encoded)
        served = logit_function(model, training=False)(encoded)
    difference = np.abs(trained - served)
    return Check(
        "mode",
        f"training=True against training=False, the same {len(served)} rows",
        largest_difference(trained, served),
        None if model.has_batch_statistics else 0.0,
        {"mean": float(difference.mean()), "rows": len(served)},
    )


def batch_served(model: CTRModel, encoded: Encoded, *, alone: int = 128, seed: int = 0) -> Check:
    """A row alone against the same row inside shuffled, padded batches; inference mode."""
    logits_of = logit_function(model, training=False)
    by_size = _batch_gaps(logits_of, encoded, alone, seed)
    return Check(
        "batch, served",
        "a row alone against the row in batches, inference mode",
        max(by_size.values()),
        LOGIT_BAR,
        {"by_batch_size": by_size},
    )


def batch_trained(model: CTRModel, encoded: Encoded, *, alone: int = 128, seed: int = 0) -> Check:
    """The batch gap: the same in training mode, weights frozen.

    With batch statistics there is no "row alone" (its variance is 0), so the reference is the
    inference-mode logit: what the row will be served as.
    """
    with frozen_batch_statistics(model):
        logits_of = logit_function(model, training=True)
        if model.has_batch_statistics:
            reference = logit_function(model, training=False)(encoded)
            sizes = [s for s in (1, *BATCH_SIZES) if s <= len(reference)]
            by_size = {}
            for size in sizes:
                few = np.arange(min(len(reference), max(64 * size, 512)) // size * size)
                found = logits_in_batches(logits_of, take_rows(encoded, few), size, seed)
                by_size[str(size)] = largest_difference(found, reference[few])
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
    logits_of: Callable[[Encoded], np.ndarray], encoded: Encoded, alone: int, seed: int
) -> dict[str, float]:
    """Largest difference between a row alone and the row in batches, by batch size."""
    num_rows = len(encoded["ids"])
    rows = np.arange(min(alone, num_rows))
    single = np.concatenate([logits_of(take_rows(encoded, np.array([i]))) for i in rows])
    gaps = {}
    for size in BATCH_SIZES:
        found = logits_in_batches(logits_of, encoded, size, seed)
        gaps[str(size)] = largest_difference(found[rows], single)
    return gaps
