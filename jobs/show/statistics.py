"""A data directory as tables: where its rows went, and their statistics. Needs no TensorFlow."""

from __future__ import annotations

import collections
import datetime
from typing import Any

from jobs.show.tables import table
from pipeline.records.data_directory import DataDirectory

__all__ = ["statistics_text", "summary_table"]

_MOST_PERIODS = 48  # lines of the label rate by hour; beyond that, by day
_WIDEST_VALUE = 16  # characters of a value that are shown


def summary_table(data: DataDirectory) -> str:
    """Where every input row went."""
    summary = data.summary
    total = summary["input_rows"] or 1
    rows: list[list[Any]] = []
    for name, split in summary["splits"].items():
        share = f"{split['input_rows'] / total:.2%}"
        rows.append(
            [name, split["input_rows"], share, f"{split['label_rate']:.4%}", split["shards"]]
        )
    for name in ("dropped_by_sampling", "rejected_rows"):
        rows.append([name.replace("_", " "), summary[name], f"{summary[name] / total:.2%}", "", ""])
    rows.append(["input rows", summary["input_rows"], "100.00%", "", ""])
    return table(["where", "rows", "share", "label rate", "shards"], rows, title=str(data.path))


def statistics_text(data: DataDirectory, numbers: dict[str, Any]) -> str:
    """Every table of a data directory's statistics; `numbers` is its statistics.json."""
    parts = [summary_table(data), _headline(numbers)]
    numeric = [_numeric_row(name, s) for name, s in numbers["numeric"].items()]
    if numeric:
        head = ["numeric", "present", "missing", "min", "median", "mean", "std", "max"]
        parts.append(table(head, numeric))
    text = [_text_row(name, s) for name, s in numbers["text"].items()]
    if text:
        head = ["text", "present", "missing", "distinct", "kept", "most frequent (count)"]
        parts.append(table(head, text))
    times = [_time_row(name, s) for name, s in numbers.get("time", {}).items()]
    if times:
        head = ["datetime", "format", "present", "missing", "does not fit", "earliest", "latest"]
        parts.append(table(head, times))
    if numbers["label_rate_by_hour"]:
        parts.append(_by_time(numbers["label_rate_by_hour"]))
    return "\n".join(parts)


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


def _time_row(name: str, summary: dict[str, Any]) -> list[Any]:
    present, missing, misfits = (summary[k] for k in ("present", "missing", "misfits"))
    rows = present + missing + misfits
    wrong = _share(misfits, rows - misfits)
    if misfits:
        wrong += f" (as {summary['misfit_example'][:_WIDEST_VALUE]!r})"
    span = [summary[k] or "-" for k in ("earliest", "latest")]
    return [name, summary["format"], present, _share(missing, rows - missing), wrong, *span]


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
