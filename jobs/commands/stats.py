"""`clickparity stats`: the statistics of a data directory as tables."""

from __future__ import annotations

import argparse
import collections
import datetime
import json
from pathlib import Path
from typing import Any

from jobs.commands.preprocess import summary_table
from jobs.show.tables import table
from pipeline.records.data_directory import DataDirectory

__all__ = ["main"]

_MOST_PERIODS = 48  # lines of the label rate by hour; beyond that, by day
_WIDEST_VALUE = 16  # characters of a value that are shown


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Reads statistics.json; no TensorFlow needed."""
    data = DataDirectory.open(Path(arguments.data))
    numbers = json.loads((data.path / "statistics" / "statistics.json").read_text())
    parts = [summary_table(data), _headline(numbers)]
    numeric = [_numeric_row(name, s) for name, s in numbers["numeric"].items()]
    if numeric:
        head = ["numeric", "present", "missing", "min", "median", "mean", "std", "max"]
        parts.append(table(head, numeric))
    text = [_text_row(name, s) for name, s in numbers["text"].items()]
    if text:
        head = ["text", "present", "missing", "distinct", "kept", "most frequent (count)"]
        parts.append(table(head, text))
    if numbers["label_rate_by_hour"]:
        parts.append(_by_time(numbers["label_rate_by_hour"]))
    return numbers, "\n".join(parts)


def _headline(numbers: dict[str, Any]) -> str:
    rate = numbers["label_rate"]
    shown = "unknown" if rate is None else f"{rate:.4%}"
    return (
        f"Below: {numbers['training_rows']:,} training examples of schema {numbers['schema']}, "
        f"before down-sampling; label rate {shown}."
    )


def _numeric_row(name: str, summary: dict[str, Any]) -> list[Any]:
    median = summary["quantiles"][10] if summary["quantiles"] else None
    figures = [
        summary["min"], median, summary["mean"], summary["standard_deviation"], summary["max"]
    ]  # fmt: skip
    present, missing = summary["count"], summary["missing"]
    return [name, present, _share(missing, present), *map(_figure, figures)]


def _text_row(name: str, summary: dict[str, Any]) -> list[Any]:
    present, missing = summary["present"], summary["missing"]
    counted: list[Any] = [summary["distinct"], summary["kept"]]
    if not summary["distinct"] and present:  # nothing was counted: every value is hashed
        counted = ["hashed", f"{summary['num_oov_buckets']:,} ids"]
    return [name, present, _share(missing, present), *counted, _top(summary)]


def _by_time(hours: dict[str, list[int]]) -> str:
    """Label rate of all splits by hour, or by day when the hours are many."""
    by_day = len(hours) > _MOST_PERIODS
    periods: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for hour, (rows, clicks) in hours.items():
        at = datetime.datetime.fromtimestamp(int(hour) * 3600, datetime.UTC)
        period = periods[at.strftime("%Y-%m-%d" if by_day else "%Y-%m-%d %H:00")]
        period[0] += rows
        period[1] += clicks
    lines = [
        [name, rows, clicks, f"{clicks / rows:.4%}"] for name, (rows, clicks) in periods.items()
    ]
    head = ["day (UTC)" if by_day else "hour (UTC)", "examples", "clicks", "label rate"]
    return table(head, lines)


def _share(missing: int, present: int) -> str:
    return f"{missing / max(missing + present, 1):.1%}"


def _figure(value: float | None) -> str:
    """Five significant digits; whole numbers whole."""
    if value is None:
        return "-"
    return f"{int(value):,}" if value == int(value) and abs(value) < 1e15 else f"{value:,.5g}"


def _top(summary: dict[str, Any]) -> str:
    shown = []
    for value, count in summary["top"][:2]:
        cut = (
            value
            if len(value) <= _WIDEST_VALUE
            else value[: _WIDEST_VALUE - 1] + "\N{HORIZONTAL ELLIPSIS}"
        )
        shown.append(f"{cut} ({count:,})")
    return " ".join(shown)
