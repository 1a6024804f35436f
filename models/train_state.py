"""Where a training is, apart from its variables: position in the data, history, best epoch."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from models.train_config import EarlyStoppingConfig

__all__ = ["Position"]


@dataclasses.dataclass
class Position:
    """Where a training is, and what it will report; the JSON state of a checkpoint."""

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    loss_sum: float = 0.0
    weight: float = 0.0
    seconds: float = 0.0
    best_value: float | None = None
    best_epoch: int = 0
    stopped: bool = False
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def restored(cls, state: dict[str, Any] | None) -> Position:
        """The state that a checkpoint held, or the start."""
        return cls() if state is None else cls(**state)

    def advance(self, num_steps: int, loss_sum: float, weight: float, seconds: float) -> None:
        """Counts executed steps."""
        self.step += num_steps
        self.global_step += num_steps
        self.loss_sum += loss_sum
        self.weight += weight
        self.seconds += seconds

    def end_epoch(
        self,
        validation: dict[str, float] | None,
        early_stopping: EarlyStoppingConfig | None,
        batch_size: int,
    ) -> bool:
        """Records the epoch, moves to the next; says whether this one is the best so far."""
        self.history.append(
            {
                "epoch": self.epoch,
                "global_step": self.global_step,
                "train_loss": self.loss_sum / self.weight if self.weight else 0.0,
                "examples_per_s": self.step * batch_size / max(self.seconds, 1e-9),
                "validation": validation,
            }
        )
        improved = False
        if early_stopping is not None and validation is not None:
            value = validation[early_stopping.metric]
            value = value if early_stopping.metric == "auc" else -value
            bar = -math.inf if self.best_value is None else self.best_value
            improved = value > bar + early_stopping.min_delta
            if improved:
                self.best_value, self.best_epoch = value, self.epoch
            self.stopped = self.epoch - self.best_epoch >= early_stopping.patience
        self.epoch += 1
        self.step, self.loss_sum, self.weight, self.seconds = 0, 0.0, 0.0, 0.0
        return improved
