"""What batch norm does to a score by the other rows of a batch: the sweep of the parity report.

Training mode, weights frozen, against the served logit of the same row. Only a model with batch
statistics is swept: any other passes the bar of `batch, trained`, which says that the other rows are nothing
to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.records.encoded import MISSING_ID, EncodedSpec
from serving.parity.checks import Check
from serving.parity.logits import Encoded, take_rows

__all__ = [
    "BATCH_SIZE",
    "DRIFT_FACTORS",
    "SWEEP_SIZES",
    "compositions",
    "sweep",
]

SWEEP_SIZES = (1, 2, 8, 64, 512, 4096)
BATCH_SIZE = 512
DRIFT_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
_MAX_BATCHES, _MIN_ROWS = 64, 1024

Logits = Callable[[Encoded], np.ndarray]
Batches = list[np.ndarray]
"""Row numbers, an array of them a batch."""


def sweep(
    trained: Logits,
    served: Mapping[str, np.ndarray],
    encoded: Encoded,
    spec: EncodedSpec,
    *,
    seed: int = 0,
) -> Check:
    """The gap by batch size, by composition and under drift of the base rate.

    Args:
        trained: encoded batch -> logits [n] in training mode.
        served: served logits [rows] of every row, by the statistics that they were served with:
            "as trained", and "re-estimated" where these were computed anew.
        encoded: the held-out rows, with `label`.
        spec: names and sizes of the encoded tensors.
        seed: of the shuffles and draws.

    Returns:
        A check without a bar; `value` is the largest gap at batch 64, random rows.
    """
    rng = np.random.default_rng(seed)
    label = np.asarray(encoded["label"]) > 0
    num_rows = len(label)
    by_size = {
        str(size): _gaps(trained, served, encoded, _random_batches(rng, num_rows, size))
        for size in SWEEP_SIZES
        if size <= num_rows
    }
    size = min(BATCH_SIZE, num_rows)
    by_composition = {
        name: _gaps(trained, served, encoded, batches)
        for name, batches in compositions(encoded, spec, size, rng).items()
    }
    rate = float(label.mean())
    by_drift = {}
    for factor in DRIFT_FACTORS:
        if label.any() and not label.all() and rate * factor < 1:
            batches = [_drawn(rng, label, size, rate * factor) for _ in range(8)]
            by_drift[f"{factor:g}"] = _gaps(trained, served, encoded, batches)
    some = by_size.get("64") or next(iter(by_size.values()))
    return Check(
        "batch, composition",
        "training mode, weights frozen, against the served logit; by batch size, by who else is "
        "in the batch, by base rate; value at batch 64",
        float(some["as trained"]["largest"]),
        None,
        {
            "rows": num_rows,
            "batch_size": size,
            "base_rate": rate,
            "by_batch_size": by_size,
            "by_composition": by_composition,
            "by_base_rate_factor": by_drift,
        },
    )


def compositions(
    encoded: Encoded, spec: EncodedSpec, size: int, rng: np.random.Generator
) -> dict[str, Batches]:
    """Batches of `size` rows by what they have in common, as logs are met in practice.

    "one user": the most frequent ids of the feature with the most ids, a batch an id (rows repeat
    where an id has fewer); "one hour" likewise, where the rows have an hour. "all clicks" and "no
    click" draw with replacement.
    """
    label = np.asarray(encoded["label"]) > 0
    found = {"random": _random_batches(rng, len(label), size)}
    if spec.categorical:
        ids = np.asarray(encoded["ids"])
        user = int(np.argmax([f.vocab_size for f in spec.categorical]))
        name = spec.categorical[user].name
        found[f"sorted by {name}"] = _sorted_batches(ids[:, user], size)
        alike = {f"one {name}": ids[:, user]}
        hours = [i for i, f in enumerate(spec.categorical) if _is_hour(f.name)]
        if hours:
            alike["one hour"] = ids[:, hours[0]]
        for title, column in alike.items():
            if (column != MISSING_ID).any():
                found[title] = _one_value_batches(column, size)
    for name, rows in (("all clicks", label), ("no click", ~label)):
        if rows.any():
            found[name] = [rng.choice(np.flatnonzero(rows), size) for _ in range(4)]
    return found


def _is_hour(name: str) -> bool:
    return name == "hour" or name.endswith("_hour")


def _random_batches(rng: np.random.Generator, num_rows: int, size: int) -> Batches:
    """Whole batches of different rows: as many as `_MAX_BATCHES`, or `_MIN_ROWS` rows of small ones."""
    limit = max(min(_MAX_BATCHES * size, 8192), _MIN_ROWS if size > 1 else 256, size)
    order = rng.permutation(num_rows)[: limit // size * size]
    return [order[i : i + size] for i in range(0, len(order) // size * size, size)]


def _sorted_batches(values: np.ndarray, size: int) -> Batches:
    """Neighbours in the order of a column, spread over it."""
    order = np.argsort(values, kind="stable")
    starts = np.arange(0, max(len(order) - size, 0) + 1, size)
    chosen = starts[np.unique(np.linspace(0, len(starts) - 1, 8).astype(int))]
    return [order[i : i + size] for i in chosen]


def _one_value_batches(values: np.ndarray, size: int) -> Batches:
    """Batches that hold one value each: the four most frequent ones (missing is no value)."""
    found, counts = np.unique(values[values != MISSING_ID], return_counts=True)
    most = found[np.argsort(-counts, kind="stable")[:4]]
    return [np.resize(np.flatnonzero(values == value), size) for value in most]


def _drawn(rng: np.random.Generator, label: np.ndarray, size: int, rate: float) -> np.ndarray:
    """A batch with a share `rate` of clicks, drawn with replacement."""
    clicks = round(size * rate)
    parts = [
        rng.choice(np.flatnonzero(label), clicks),
        rng.choice(np.flatnonzero(~label), size - clicks),
    ]
    return rng.permutation(np.concatenate(parts))


def _gaps(
    trained: Logits, served: Mapping[str, np.ndarray], encoded: Encoded, batches: Batches
) -> dict[str, Any]:
    """Trained minus served logits over some batches: largest and mean distance, and mean shift."""
    rows = np.concatenate(batches)
    logits = np.concatenate([trained(take_rows(encoded, batch)) for batch in batches])
    result: dict[str, Any] = {"rows": len(rows)}
    for name, reference in served.items():
        gap = logits.astype(np.float64) - reference[rows]
        result[name] = {
            "largest": float(np.abs(gap).max()),
            "mean": float(np.abs(gap).mean()),
            "shift": float(gap.mean()),
        }
    return result
