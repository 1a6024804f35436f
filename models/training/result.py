"""What a training came to."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["TrainResult"]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a training came to; RUN_DIR/training.json.

    Attributes:
        epochs: that were run.
        global_step: steps that were run, over all processes.
        best_epoch: counted from 0; whose weights were kept.
        examples_per_s: rows trained per second of this process's last epoch; 0 if it had none.
        loss: the resolved loss, plain data: what `models.calibration` corrects for.
        history: one record an epoch.
        best_step: global step whose weights were kept; None in what earlier versions wrote.
        replicas: devices that shared each global batch equally.
    """

    epochs: int
    global_step: int
    best_epoch: int
    examples_per_s: float
    loss: dict[str, Any]
    history: list[dict[str, Any]]
    best_step: int | None = None
    replicas: int = 1
