"""`clickparity train`: train a model on a data directory."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_config_arguments, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.MODEL
HELP = "train a model on a data directory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--data", required=True, type=local, metavar="DATA_DIR", help="what `preprocess` wrote"
    )
    parser.add_argument(
        "--out",
        required=True,
        type=local,
        metavar="RUN_DIR",
        help="a new directory, or one of the same training to go on with",
    )
    add_config_arguments(parser)


def main(arguments: argparse.Namespace) -> Answer:
    """Trains (or goes on training) and evaluates on the test split (else on what is held out)."""
    from jobs.config import load_run_config
    from jobs.show.metrics import metrics_table
    from jobs.steps import train_run
    from models.run_steps import evaluate_run
    from pipeline.records.data_directory import SPLITS, DataDirectory

    config = load_run_config(arguments.config, arguments.set)
    data = DataDirectory.open(arguments.data)
    trained = train_run(data, config, arguments.out)
    run = trained.run
    split = next(s for s in reversed(SPLITS) if data.num_rows(s))
    metrics = evaluate_run(trained, split)
    result = {
        "run": str(run.path),
        "fingerprint": run.fingerprint,
        "training": run.read_json("training.json"),
        split: metrics.to_json(),
    }
    return result, metrics_table(metrics, f"{run.path}, {split} split")
