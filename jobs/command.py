"""What a command is: a module of jobs/commands that has GROUP, HELP, add_arguments and main.

It registers itself by being there; nothing else lists it. The top of such a module imports nothing
heavy: `clickparity --help` imports them all, and takes a tenth of a second for it.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from enum import StrEnum
from typing import Any, Protocol, cast

import jobs.commands

__all__ = [
    "Answer",
    "Command",
    "Group",
    "add_config_arguments",
    "add_models_argument",
    "commands",
]

Answer = tuple[Any, str]
"""The result as JSON data, and as text."""


class Group(StrEnum):
    """What somebody wants who looks for a command; the order of `clickparity --help`."""

    START = "first look"
    DATA = "data"
    MODEL = "model"
    PUBLISH = "publish"
    SERVE = "serve"
    OPERATE = "operate"


class Command(Protocol):
    """A module of jobs/commands.

    Attributes:
        GROUP: where --help lists it.
        HELP: a line.
        PASSES_BEAM_OPTIONS: whether arguments that it does not know go to Beam; optional.
    """

    GROUP: Group
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds its arguments to its own parser."""

    def main(self, arguments: argparse.Namespace) -> Answer:
        """Does the work.

        Raises:
            ClickparityError: see the exit codes of `jobs.cli`.
        """


def commands() -> dict[str, Command]:
    """Every command by its name on the command line, which is its file's with hyphens."""
    names = sorted(found.name for found in pkgutil.iter_modules(jobs.commands.__path__))
    return {
        name.replace("_", "-"): cast(Command, importlib.import_module(f"jobs.commands.{name}"))
        for name in names
    }


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """--config and --set, as `jobs.config.load_run_config` takes them."""
    parser.add_argument(
        "--config", metavar="FILE", help="YAML of a pipeline, see configs/ (default: defaults)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override options of the config, e.g. model.norm=layer train.global_batch_size=512",
    )


def add_models_argument(parser: argparse.ArgumentParser) -> None:
    """--models: the directory that TF Serving watches."""
    parser.add_argument(
        "--models", required=True, metavar="DIR", help="the directory that TF Serving watches"
    )
