"""`clickparity export`: gate on the parity report, then publish the same bytes."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_models_argument

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.PUBLISH
HELP = "gate on the parity report, then publish the same bytes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--run", required=True, metavar="RUN_DIR", help="a run that `parity` has passed"
    )
    add_models_argument(parser)
    parser.add_argument("--name", required=True, metavar="NAME", help="of the served model")


def main(arguments: argparse.Namespace) -> Answer:
    """Publishes RUN_DIR/export; exit 3 when a gate says no."""
    from pathlib import Path

    from jobs.steps import export_run
    from models.run_directory import RunDirectory

    run = RunDirectory.open(arguments.run)
    published = export_run(run, Path(arguments.models), arguments.name)
    return published, published["message"]
