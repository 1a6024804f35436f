"""What a runner returns to its process, and what the process measures on it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.scores import Rows
from models.metrics import auc, evaluate, expected_calibration_error, log_loss
from models.metrics.checked_arrays import loss_terms
from pipeline.errors import DivergedError

__all__ = ["CellOutcome", "SplitLogits", "metrics_of", "plain"]

Array = NDArray[np.floating]


@dataclasses.dataclass(frozen=True, eq=False)
class SplitLogits:
    """A runner's answers for the rows of a split, in file order; each float [rows].

    Attributes:
        calibrated: log odds of a click.
        raw: as the model gave them.
        corrected: after the exact correction of loss and sampling, before the fitted residual.
    """

    calibrated: Array
    raw: Array
    corrected: Array

    @classmethod
    def uncalibrated(cls, logits: Array) -> SplitLogits:
        """Of a model that has no calibration of its own."""
        return cls(logits, logits, logits)


@dataclasses.dataclass(frozen=True)
class CellOutcome:
    """What a runner came to.

    Attributes:
        logits: by split.
        training: plain data for the report.
        examples: that were trained on, over all epochs.
    """

    logits: dict[str, SplitLogits]
    training: dict[str, Any]
    examples: int


def metrics_of(rows: Rows, logits: SplitLogits) -> dict[str, Any]:
    """Metrics of a split: calibrated, raw, and against the truth where the rows carry it.

    Raises:
        DivergedError: an answer is no finite number.
    """
    stages = {name: getattr(logits, name) for name in ("calibrated", "raw", "corrected")}
    for name, values in stages.items():
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise DivergedError(
                "a model's logits must be finite",
                f"{bad:,} of {len(values):,} {name} logits are not",
                "Lower train.learning_rate, or set train.gradient_clip_norm=10.",
            )
    found: dict[str, Any] = {
        **evaluate(rows.label, logits.calibrated, rows.weight)["overall"],
        "raw": evaluate(rows.label, logits.raw, rows.weight)["overall"],
    }
    if rows.truth is not None:
        best = np.log(rows.truth) - np.log1p(-rows.truth)
        found["truth"] = {
            "bayes_auc": auc(rows.label, best, rows.weight),
            "bayes_log_loss": log_loss(rows.label, logits=best, weight=rows.weight),
            **{name: _against_truth(rows, values) for name, values in stages.items()},
        }
    return found


def _against_truth(rows: Rows, logits: Array) -> dict[str, float]:
    """Calibration against true probabilities, and the regret: nothing here depends on drawn clicks."""
    truth = np.asarray(rows.truth)
    _, probability, loss, weight = loss_terms(truth, logits, None, rows.weight)
    _, _, best, _ = loss_terms(truth, None, truth, rows.weight)
    return {
        "prediction_over_truth": float(np.dot(weight, probability) / np.dot(weight, truth)),
        "calibration_error": expected_calibration_error(truth, logits=logits, weight=weight),
        "regret": float(np.average(loss - best, weights=weight)),
    }


def plain(value: Any) -> Any:
    """JSON values: what is no finite number becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
