"""The replica check: one optimizer step on one and on two replicas gives the same model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from models.norms.batch import BatchNormConfig
from models.run_directory import RunDirectory
from pipeline.errors import ClickparityError
from pipeline.python_process import python_environment
from serving.loader.child_process import why_failed
from serving.parity.checks import LOGIT_BAR, Check
from serving.parity.logits import largest_difference

__all__ = ["AS_CONFIGURED", "batch_norms", "replica_equality"]

AS_CONFIGURED = "as configured"
_ROWS = 256  # the global batch; even, so that two replicas see equally many
_TIMEOUT_S = 600


def batch_norms(config: BaseModel) -> list[BatchNormConfig]:
    """Every batch norm that a model's config names, wherever in it."""
    fields = [getattr(config, name) for name in type(config).model_fields]
    found = [field for field in fields if isinstance(field, BatchNormConfig)]
    return found + [
        norm for field in fields if isinstance(field, BaseModel) for norm in batch_norms(field)
    ]


def replica_equality(
    run: RunDirectory, encoded: Mapping[str, np.ndarray], *, has_batch_statistics: bool
) -> Check:
    """Served logits after one optimizer step on 1 and on 2 logical CPUs, the same global batch.

    The trained weights are stepped with the run's own loss and optimizer, its slots fresh. Batch
    norm is measured both ways, per replica and synchronised; `value` is as the run is configured.

    Args:
        run: trained.
        encoded: encoded rows with label and weight.
        has_batch_statistics: of the built model; then the gap is reported, and no bar holds it.

    Raises:
        ClickparityError: the process failed.
    """
    num_rows = min(len(encoded["label"]), _ROWS) // 2 * 2
    rows = {name: values[:num_rows] for name, values in encoded.items()}
    answer = _step(run, rows)
    variants = sorted({name.rpartition("/")[0] for name in answer})
    gaps = {name: largest_difference(answer[f"{name}/1"], answer[f"{name}/2"]) for name in variants}
    moved = {
        name: largest_difference(answer[f"{name}/1"], answer[f"{name}/0"]) for name in variants
    }
    synchronized = {norm.synchronized for norm in batch_norms(run.model_config)}
    chosen = AS_CONFIGURED
    if AS_CONFIGURED not in variants:
        chosen = "synchronised" if synchronized == {True} else "per replica"
    return Check(
        "replica",
        f"one optimizer step on 1 and on 2 replicas, the same global batch of {num_rows}",
        gaps[chosen],
        None if has_batch_statistics else LOGIT_BAR,
        {"by_variant": gaps, "moved_by_the_step": moved, "rows": num_rows, "configured": chosen},
    )


def _step(run: RunDirectory, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "rows.npz", Path(scratch) / "answer.npz"
        np.savez(asked, **rows)  # type: ignore[arg-type]
        module = ["-m", "serving.parity.replica_process"]
        reason = why_failed(
            [*module, str(run.path.resolve()), str(asked), str(answered)],
            timeout_s=_TIMEOUT_S,
            environment=python_environment(),
        )
        if reason is not None:
            raise ClickparityError("the run must train a step on one and on two replicas", reason)
        with np.load(answered) as arrays:
            return dict(arrays)
