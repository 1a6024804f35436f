"""`clickparity stats`: show the statistics of a data directory."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.command import Answer, Group, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.DATA
HELP = "show the statistics of a data directory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("data", type=local, metavar="DATA_DIR", help="what `preprocess` wrote")


def main(arguments: argparse.Namespace) -> Answer:
    """Reads statistics.json; needs no TensorFlow."""
    import json

    from jobs.show.statistics import statistics_text
    from pipeline.records.data_directory import DataDirectory

    data = DataDirectory.open(arguments.data)
    numbers: dict[str, Any] = json.loads((data.path / "statistics" / "statistics.json").read_text())
    return numbers, statistics_text(data, numbers)
