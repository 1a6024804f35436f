"""`clickparity drift`: today's data against the last accepted run's, before anything trains."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.config import load_run_config
from jobs.show.progress import say
from jobs.show.tables import table
from pipeline.errors import GateError
from pipeline.records.data_directory import DataDirectory
from pipeline.statistics.drift import DriftReport, compare_statistics
from pipeline.statistics.feature_statistics import FeatureStatistics

__all__ = ["drift_table", "main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Compares two data directories; exit 3, with the table on stderr, when they drifted apart."""
    config = load_run_config(arguments.config, arguments.set).drift
    today = DataDirectory.open(arguments.data)
    before = DataDirectory.open(arguments.against)
    report = compare_statistics(
        FeatureStatistics.load(today.path / "statistics"),
        FeatureStatistics.load(before.path / "statistics"),
        config,
    )
    text = drift_table(report, f"{today.path} against {before.path}")
    try:
        report.raise_if_drifted()
    except GateError:
        say(text)
        raise
    return report.to_json(), text


def drift_table(report: DriftReport, title: str = "") -> str:
    """The report as a table, worst features marked in the last column."""
    return table(DriftReport.HEADER, report.table_rows(), title=title)
