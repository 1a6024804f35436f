"""Metrics and parity checks as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.show.tables import number, table
from models.evaluation import Evaluation, Metrics
from serving.parity.outcome import ParityReport

if TYPE_CHECKING:
    from jobs.scheduled_run import RunResult

__all__ = ["metrics_table", "parity_table", "run_text", "segment_table"]


def metrics_table(metrics: Evaluation, title: str) -> str:
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
    rows: list[list[Any]] = [
        [n.replace("_", " "), getattr(metrics, n), getattr(metrics.raw, n)] for n in names
    ]
    low, high = metrics.auc_low or 0, metrics.auc_high or 0
    rows.insert(1, ["auc, 95 % interval", f"{low:.4f} .. {high:.4f}", ""])
    ends = _with_interval(metrics, "calibration_ratio")
    rows.append(["calibration ratio, 95 % interval", f"{ends}: {metrics.calibration_says}", ""])
    if metrics.truth is not None:
        found = dataclasses.asdict(metrics.truth)
        rows += [[name.replace("_", " "), value, ""] for name, value in found.items()]
    rows.append(["rows", metrics.count, ""])
    return table(["metric", "calibrated", "raw"], rows, title=title)


def segment_table(name: str, values: Mapping[str, Metrics]) -> str:
    """One line a value of a column, the most frequent first; --json has every metric."""
    lines = [
        [
            value,
            found.count,
            int(found.clicks),
            _with_interval(found, "auc"),
            number(found.log_loss),
            _with_interval(found, "calibration_ratio"),
        ]
        for value, found in values.items()
    ]
    header = [name, "rows", "clicks", "AUC", "log loss", "calibration ratio"]
    return table(header, lines, title=f"by {name}, calibrated, with 95 % intervals")


def _with_interval(found: Metrics, metric: str) -> str:
    low, high = (number(getattr(found, f"{metric}_{end}")) for end in ("low", "high"))
    return f"{number(getattr(found, metric))} [{low}, {high}]"


def parity_table(report: ParityReport, title: str) -> str:
    """The checks, one a line."""
    words = {True: "holds", False: "FAILS", None: "reported"}
    rows = []
    for check in report.checks:
        bar = "" if check.bar is None else f"{check.bar:.0e}" if check.bar else "0"
        rows.append([check.name, f"{check.value:.3g}", bar, words[check.passed]])
    return table(["parity check", "largest difference", "bar", ""], rows, title=title)


def run_text(result: RunResult) -> str:
    """What `clickparity run` came to."""
    published, metrics = result.published, result.metrics
    if result.nothing_to_do:
        return (
            f"nothing to do: run {result.run_id} is finished, "
            f"published as version {published.version} of {published.name}"
        )
    names = ("auc", "log_loss", "calibration_ratio")
    rows = [[n.replace("_", " "), getattr(metrics, n)] for n in names]
    rows += [[f"parity: {name}", value] for name, value in result.parity.items()]
    return table(["", "test split"], rows, title=result.run) + "\n" + published.message
