"""What a person sees of a training: a live line on a terminal, lines in a log, TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.plain_text import plain

__all__ = ["TrainingProgress"]

_PLAIN_LINE_EVERY_S = 30.0


class TrainingProgress:
    """Shows examples/s, loss and validation AUC on stderr, and writes the same for TensorBoard.

    Args:
        logs: TensorBoard's directory.
        total_steps: of all epochs.
        batch_size: global, in rows.
        show: whether to write to stderr at all.
    """

    def __init__(self, logs: Path, total_steps: int, batch_size: int, *, show: bool) -> None:
        self._console = Console(file=sys.stderr, quiet=not show)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[speed]:,.0f} examples/s"),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[validation]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (show and self._console.is_terminal),
        )
        self._task = self._bar.add_task(
            "train", total=total_steps, epoch=1, speed=0.0, loss=float("nan"), validation=""
        )
        self._writer = tf.summary.create_file_writer(str(logs))
        self._batch_size = batch_size
        self._total_steps = total_steps
        self._last_line_s = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._writer.close()

    def steps(
        self, *, epoch: int, global_step: int, num_steps: int, loss: float, seconds: float
    ) -> None:
        """Reports executed steps.

        Args:
            epoch: counted from 0.
            global_step: after them.
            num_steps: how many.
            loss: their mean loss.
            seconds: their wall time.
        """
        speed = num_steps * self._batch_size / max(seconds, 1e-9)
        self._bar.update(self._task, completed=global_step, epoch=epoch + 1, loss=loss, speed=speed)
        with self._writer.as_default(step=global_step):
            tf.summary.scalar("train/loss", loss)
            tf.summary.scalar("train/examples_per_s", speed)
        if not self._console.is_terminal:
            now = time.monotonic()
            if now - self._last_line_s >= _PLAIN_LINE_EVERY_S:
                self._last_line_s = now
                self.say(
                    f"epoch {epoch + 1} step {global_step}/{self._total_steps}"
                    f" {speed:,.0f} examples/s loss {loss:.4f}"
                )

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Reports an epoch's line of the history."""
        validation: Mapping[str, float] = record.get("validation") or {}
        text = " ".join(f"{name} {value:.4f}" for name, value in validation.items())
        self._bar.update(self._task, validation=f"validation {text}" if text else "")
        with self._writer.as_default(step=int(record["global_step"])):
            for name, value in validation.items():
                tf.summary.scalar(f"validation/{name}", value)
        self._writer.flush()
        self.say(
            f"epoch {record['epoch'] + 1}: loss {record['train_loss']:.4f}"
            f" {record['examples_per_s']:,.0f} examples/s"
            + (f" | validation {text}" if text else "")
        )

    def say(self, line: str) -> None:
        """A line on stderr that stays."""
        self._console.print(plain(line, lines=True), highlight=False, markup=False, soft_wrap=True)
