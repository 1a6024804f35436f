"""`clickparity parity`: build RUN_DIR/export and prove that it scores as trained."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.MODEL
HELP = "build RUN_DIR/export and prove that it scores as trained"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--run", required=True, metavar="RUN_DIR", help="the trained run to prove")
    parser.add_argument("--against", metavar="RUN_DIR", help="a second run to compare with")
    parser.add_argument(
        "--cpp-loader",
        choices=("auto", "on", "off"),
        default="auto",
        help="also score with TF Serving's C++ loader; auto: where a C++ compiler exists; on: fail "
        "without one (default: auto)",
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Runs every check; exit 3 when a bar fails (the report is written all the same)."""
    from jobs.show.metrics import parity_table
    from jobs.show.progress import say
    from jobs.steps import parity_run
    from models.run_directory import RunDirectory
    from pipeline.errors import GateError

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
