"""`clickparity rollback`: publish an older version again, under the next number."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_models_argument

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.PUBLISH
HELP = "publish an older version again, under the next number"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_models_argument(parser)
    parser.add_argument("--name", required=True, metavar="NAME", help="of the model")
    parser.add_argument(
        "--to",
        type=int,
        metavar="VERSION",
        help="the version to serve again (default: the one that was live before)",
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Publishes the older version again; the bad one stays listed."""
    from serving.repository.repository import ModelRepository
    from serving.repository.version_check import loads_and_answers

    repository = ModelRepository(arguments.models, arguments.name)
    answer = repository.rollback(arguments.to, check=loads_and_answers)
    return {"version": answer.number, "fingerprint": answer.fingerprint}, answer.message
