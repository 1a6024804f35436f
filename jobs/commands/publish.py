"""`clickparity publish`: publish an export as the next version."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_models_argument, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.PUBLISH
HELP = "publish an export as the next version"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--export",
        required=True,
        type=local,
        metavar="DIR",
        help="a SavedModel, e.g. RUN_DIR/export",
    )
    add_models_argument(parser)
    parser.add_argument("--name", required=True, metavar="NAME", help="of the served model")
    parser.add_argument(
        "--force", action="store_true", help="publish even if it is live already or was rolled back"
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Copies beside, verifies, loads once, renames."""
    from serving.repository.repository import ModelRepository
    from serving.repository.version_check import loads_and_answers

    repository = ModelRepository(arguments.models, arguments.name)
    answer = repository.publish(arguments.export, check=loads_and_answers, force=arguments.force)
    return {
        "version": answer.number,
        "path": str(answer.path),
        "fingerprint": answer.fingerprint,
        "outcome": answer.outcome.value,
    }, answer.message
