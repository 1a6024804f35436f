"""Where a training is, apart from its variables: position in the data, history, best epoch."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from models.config.train import EarlyStoppingConfig
from pipeline.errors import ConfigError

__all__ = ["Position"]


@dataclasses.dataclass
class Position:
    """Where a training is, and what it will report; the JSON state of a checkpoint."""

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    loss_sum: float = 0.0
    weight: float = 0.0
    timed_steps: int = 0
    seconds: float = 0.0
    early_validation: dict[str, float] | None = None
    best_value: float | None = None
    best_epoch: int = 0
    best_step: int = 0
    stopped: bool = False
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def restored(cls, state: dict[str, Any] | None) -> Position:
        """The state that a checkpoint held, or the start."""
        return cls() if state is None else cls(**state)

    def advance(
        self, num_steps: int, loss_sum: float, weight: float, seconds: float | None
    ) -> None:
        """Counts executed steps; `seconds` is None for those that were compiled on the way."""
        self.step += num_steps
        self.global_step += num_steps
        self.loss_sum += loss_sum
        self.weight += weight
        if seconds is not None:
            self.timed_steps += num_steps
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
                "examples_per_s": self.timed_steps * batch_size / max(self.seconds, 1e-9),
                "validation": validation,
                **({"early_validation": self.early_validation} if self.early_validation else {}),
            }
        )
        improved = False
        if early_stopping is not None and validation is not None:
            improved = self.improves(validation, early_stopping)
            self.stopped = self.epoch - self.best_epoch >= early_stopping.patience
        self.epoch += 1
        self.step, self.loss_sum, self.weight = 0, 0.0, 0.0
        self.timed_steps, self.seconds, self.early_validation = 0, 0.0, None
        return improved

    def improves(self, validation: dict[str, float], early_stopping: EarlyStoppingConfig) -> bool:
        """Whether these weights are the best so far; if so, it is remembered.

        Raises:
            ConfigError: the metric is not defined on these rows.
        """
        if early_stopping.metric not in validation:
            raise ConfigError(
                f"early stopping on {early_stopping.metric} needs clicks and non-clicks in the "
                "validation split",
                "labels of one kind only",
                "Set train.early_stopping.metric=log_loss, or preprocess more rows.",
            )
        value = validation[early_stopping.metric]
        value = value if early_stopping.metric == "auc" else -value
        bar = -math.inf if self.best_value is None else self.best_value
        improved = value > bar + early_stopping.min_delta
        if improved:
            self.best_value, self.best_epoch = value, self.epoch
            self.best_step = self.global_step
        return improved

    def overfitting(self, validation: dict[str, float], tolerance: float) -> str | None:
        """The one-epoch phenomenon (Zhang et al. 2022, arXiv 2209.06053), if this is it.

        Args:
            validation: early in the second epoch; remembered for the history.
            tolerance: relative rise of the log loss that is let pass.

        Returns:
            The complaint, or None.
        """
        self.early_validation = validation
        before = (self.history[-1]["validation"] or {}).get("log_loss")
        after = validation.get("log_loss")
        if before is None or after is None or after <= before * (1.0 + tolerance):
            return None
        return (
            f"validation log loss jumped from {before:.4f} to {after:.4f} at the start of "
            f"epoch {self.epoch + 1}: the model over-fits from its second look at a row on, as CTR "
            "models do"
        )
