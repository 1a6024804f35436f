"""`clickparity prune`: delete old versions, never the live one."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_models_argument

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.PUBLISH
HELP = "delete old versions, never the live one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_models_argument(parser)
    parser.add_argument("--name", required=True, metavar="NAME", help="of the model")
    parser.add_argument(
        "--keep", type=int, default=3, help="how many of the newest versions stay (default: 3)"
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Keeps the newest `--keep` versions."""
    from serving.repository.repository import ModelRepository

    gone = ModelRepository(arguments.models, arguments.name).prune(arguments.keep)
    text = f"deleted {', '.join(map(str, gone))}" if gone else "nothing to delete"
    return {"deleted": gone, "kept": arguments.keep}, f"{arguments.name}: {text}"
