"""`clickparity stats`: the statistics of a data directory as tables."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jobs.preprocess import summary_table
from jobs.tables import table
from pipeline.data_directory import DataDirectory

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Reads statistics.json; no TensorFlow needed."""
    data = DataDirectory.open(Path(arguments.data))
    numbers = json.loads((data.path / "statistics" / "statistics.json").read_text())
    numeric = [
        [
            name,
            s["count"],
            _share(s["missing"], s["count"]),
            s["min"],
            _median(s),
            s["mean"],
            s["max"],
        ]
        for name, s in numbers["numeric"].items()
    ]
    text = [
        [name, s["present"], _share(s["missing"], s["present"]), s["distinct"], s["kept"], _top(s)]
        for name, s in numbers["text"].items()
    ]
    parts = [summary_table(data)]
    if numeric:
        head = ["numeric", "present", "missing", "min", "median", "mean", "max"]
        parts.append(table(head, numeric))
    if text:
        parts.append(
            table(["text", "present", "missing", "distinct", "kept", "most frequent"], text)
        )
    return numbers, "\n".join(parts)


def _share(missing: int, present: int) -> str:
    return f"{missing / max(missing + present, 1):.1%}"


def _median(summary: dict[str, Any]) -> Any:
    return summary["quantiles"][10] if summary["quantiles"] else None


def _top(summary: dict[str, Any]) -> str:
    return " ".join(f"{value[:12]} ({count:,})" for value, count in summary["top"][:2])
