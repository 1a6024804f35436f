"""`clickparity drift`: compare a data directory with an earlier one (a gate)."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_config_arguments, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.DATA
HELP = "compare a data directory with an earlier one (a gate)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--data", required=True, type=local, metavar="DATA_DIR", help="the new data"
    )
    parser.add_argument(
        "--against",
        required=True,
        type=local,
        metavar="DATA_DIR",
        help="the data that was accepted last",
    )
    add_config_arguments(parser)


def main(arguments: argparse.Namespace) -> Answer:
    """Compares two data directories; exit 3, with the table on stderr, when they drifted apart."""
    from jobs.config import load_run_config
    from jobs.show.progress import say
    from jobs.show.tables import table
    from pipeline.records.data_directory import DataDirectory
    from pipeline.statistics.drift import compare_statistics
    from pipeline.statistics.feature_statistics import FeatureStatistics
    from serving.gates import drift_gate

    config = load_run_config(arguments.config, arguments.set).drift
    today = DataDirectory.open(arguments.data)
    before = DataDirectory.open(arguments.against)
    report = compare_statistics(
        FeatureStatistics.load(today.path / "statistics"),
        FeatureStatistics.load(before.path / "statistics"),
        config,
    )
    text = table(report.HEADER, report.table_rows(), title=f"{today.path} against {before.path}")
    verdict = drift_gate(report)
    if not verdict.passed:
        say(text)
    verdict.raise_if_refused()
    return report.to_json(), text
