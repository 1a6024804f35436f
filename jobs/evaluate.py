"""`clickparity evaluate`: metrics of a run on a split."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.steps import evaluate_run
from jobs.train import metrics_table
from models.run_directory import RunDirectory

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Scores the split anew and writes metrics.json."""
    run = RunDirectory.open(arguments.run)
    metrics = evaluate_run(run, arguments.split, force=True)
    return metrics, metrics_table(metrics, f"{run.path}, {arguments.split} split")
