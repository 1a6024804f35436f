"""Training as a pipeline's config says it. The other steps: `models.run_steps`, `serving.run_steps`."""

from __future__ import annotations

from pathlib import Path

from jobs.config import RunConfig
from jobs.show.progress import say
from models import run_steps
from models.trained_run import TrainedRun
from pipeline.records.data_directory import DataDirectory

__all__ = ["train_run"]


def train_run(
    data: DataDirectory, config: RunConfig, out: Path, *, progress: bool = True
) -> TrainedRun:
    """Trains (or goes on training) in `out`, then fits the calibration; see `models.run_steps.train_run`."""
    return run_steps.train_run(
        data,
        out,
        config.model,
        config.train,
        config.calibration,
        other_sections=config.run_sections(),
        progress=progress,
        say=say,
    )
