"""`clickparity parity`: build RUN_DIR/export and prove that it scores as trained."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.MODEL
HELP = "build RUN_DIR/export and prove that it scores as trained"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--run", required=True, type=local, metavar="RUN_DIR", help="the trained run to prove"
    )
    parser.add_argument(
        "--against", type=local, metavar="RUN_DIR", help="a second run to compare with"
    )
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
    from models.trained_run import TrainedRun
    from pipeline.errors import GateError
    from serving.run_steps import prove_run

    trained = TrainedRun(arguments.run)
    other = TrainedRun(arguments.against) if arguments.against else None
    page = trained.run.path / "parity.html"
    report = prove_run(trained, against=other, cpp_loader=arguments.cpp_loader, force=True, say=say)
    if other is not None:
        from serving.parity.report import write_report

        write_report(page, [report, prove_run(other, say=say)])
    text = parity_table(report, str(page))
    if not report.passed:
        say(text)
        failed = ", ".join(check.name for check in report.failed)
        raise GateError("every parity bar must hold", failed, f"See {page}.")
    return report.to_json(), text
