"""`clickparity parity`: builds the export of a run and proves that it scores as trained."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.show.progress import say
from jobs.show.tables import table
from jobs.steps import parity_run
from models.run_directory import RunDirectory
from pipeline.errors import GateError

__all__ = ["main", "parity_table"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Runs every check; exit 3 when a bar fails (the report is written all the same)."""
    run = RunDirectory.open(arguments.run)
    other = RunDirectory.open(arguments.against) if arguments.against else None
    report = parity_run(run, against=other, cpp_loader=arguments.cpp_loader, force=True)
    if other is not None:
        from serving.parity.report import write_report

        write_report(run.path / "parity.html", [report, parity_run(other)])
    text = parity_table(report, str(run.path / "parity.html"))
    if not report["passed"]:
        say(text)
        failed = [c["name"] for c in report["checks"] if c["passed"] is False]
        raise GateError(
            "every parity bar must hold", ", ".join(failed), f"See {run.path / 'parity.html'}."
        )
    return report, text


def parity_table(report: dict[str, Any], title: str) -> str:
    """The checks, one a line."""
    words = {True: "holds", False: "FAILS", None: "reported"}
    rows = []
    for check in report["checks"]:
        bar = "" if check["bar"] is None else f"{check['bar']:.0e}" if check["bar"] else "0"
        value = check["value"] if isinstance(check["value"], str) else f"{check['value']:.3g}"
        rows.append([check["name"], value, bar, words[check["passed"]]])
    return table(["parity check", "largest difference", "bar", ""], rows, title=title)
