"""`clickparity evaluate`: metrics of a run on a split."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.commands.train import metrics_table
from jobs.show.tables import number, table
from jobs.steps import evaluate_run
from models.run_directory import RunDirectory

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Scores the split anew and writes metrics.json."""
    run = RunDirectory.open(arguments.run)
    metrics = evaluate_run(run, arguments.split, force=True, segments=arguments.by)
    texts = [metrics_table(metrics, f"{run.path}, {arguments.split} split")]
    texts += [segment_table(name, values) for name, values in metrics.get("segments", {}).items()]
    return metrics, "\n".join(texts)


def segment_table(name: str, values: dict[str, Any]) -> str:
    """One line a value of a column, the most frequent first; --json has every metric."""
    lines = [
        [
            value,
            int(found["count"]),
            int(found["clicks"]),
            _with_interval(found, "auc"),
            number(found["log_loss"]),
            _with_interval(found, "calibration_ratio"),
        ]
        for value, found in values.items()
    ]
    header = [name, "rows", "clicks", "AUC", "log loss", "calibration ratio"]
    return table(header, lines, title=f"by {name}, calibrated, with 95 % intervals")


def _with_interval(found: dict[str, Any], metric: str) -> str:
    ends = [number(found.get(f"{metric}_{end}")) for end in ("low", "high")]
    return f"{number(found[metric])} [{ends[0]}, {ends[1]}]"
