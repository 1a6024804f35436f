"""`clickparity evaluate`: metrics of a run on a split."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.MODEL
HELP = "metrics of a run on a split"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--run", required=True, type=local, metavar="RUN_DIR", help="the run to measure"
    )
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument(
        "--by",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN",
        help="also give the metrics for each value of these columns of the schema",
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Scores the split anew and writes metrics.json."""
    from jobs.show.metrics import metrics_table, segment_table
    from models.run_steps import evaluate_run
    from models.trained_run import TrainedRun

    trained = TrainedRun(arguments.run)
    metrics = evaluate_run(trained, arguments.split, force=True, segments=arguments.by)
    texts = [metrics_table(metrics, f"{trained.run.path}, {arguments.split} split")]
    texts += [segment_table(name, values) for name, values in metrics.segments.items()]
    return metrics.to_json(), "\n".join(texts)
