"""`clickparity train`: a data directory -> a run directory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jobs.config import load_run_config
from jobs.show.tables import table
from jobs.steps import evaluate_run, train_run
from pipeline.records.data_directory import SPLITS, DataDirectory

__all__ = ["main", "metrics_table"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Trains (or goes on training) and evaluates on the test split (else on what is held out)."""
    config = load_run_config(arguments.config, arguments.set)
    data = DataDirectory.open(arguments.data)
    run = train_run(data, config, Path(arguments.out))
    split = next(s for s in reversed(SPLITS) if data.num_rows(s))
    metrics = evaluate_run(run, split)
    result = {
        "run": str(run.path),
        "fingerprint": run.fingerprint,
        "training": run.read_json("training.json"),
        split: metrics,
    }
    return result, metrics_table(metrics, f"{run.path}, {split} split")


def metrics_table(metrics: dict[str, Any], title: str) -> str:
    """Calibrated and raw figures side by side, and the best possible where it is known."""
    names = (
        "auc",
        "average_precision",
        "log_loss",
        "normalized_entropy",
        "calibration_ratio",
        "expected_calibration_error",
        "toss_metric",
    )
    rows = [[n.replace("_", " "), metrics[n], metrics["raw"][n]] for n in names]
    rows.insert(
        1,
        [
            "auc, 95 % interval",
            f"{metrics['auc_low'] or 0:.4f} .. {metrics['auc_high'] or 0:.4f}",
            "",
        ],
    )
    for name, value in metrics.get("truth", {}).items():
        rows.append([name.replace("_", " "), value, ""])
    rows.append(["rows", int(metrics["count"]), ""])
    return table(["metric", "calibrated", "raw"], rows, title=title)
