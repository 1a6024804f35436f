"""`clickparity demo`: the whole product on a synthetic log, with a report."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.START
HELP = "the whole product on a synthetic log, with a report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--out",
        default="demo_out",
        type=local,
        metavar="DIR",
        help="where all of it goes (default: demo_out)",
    )
    parser.add_argument(
        "--rows", type=int, default=200_000, help="of the synthetic log (default: 200000)"
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Runs the demo in `--out`; finished steps are not repeated."""
    from jobs.demo.product import run_demo

    return run_demo(arguments.out, arguments.rows, tables_to_stderr=arguments.json)
