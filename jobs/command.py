"""What a command is: a module of jobs/commands that has GROUP, HELP, add_arguments and main.

It registers itself by being there; nothing else lists it. The top of such a module imports nothing
heavy: `clickparity --help` imports them all, and takes a tenth of a second for it.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import jobs.commands
from pipeline.errors import ConfigError
from pipeline.paths import RemotePath, local_path, parse_path, scheme_of

__all__ = [
    "Answer",
    "Command",
    "Group",
    "add_config_arguments",
    "add_models_argument",
    "commands",
    "input_pattern",
    "local",
    "models_directory",
    "schema_name",
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


# Each path argument is parsed by one of these, before anything is imported, read or written.


def local(text: str) -> Path:
    """The type of an argument that is a path of this machine."""
    return _typed(lambda: local_path(text, "it"))


def models_directory(text: str) -> Path | RemotePath:
    """The type of --models: a local directory or a bucket."""
    return _typed(lambda: parse_path(text, "it", schemes=("gs",)))


def input_pattern(text: str) -> str:
    """The type of a path or glob of input files: local, or on any store for which Beam has a file system."""
    return _typed(lambda: str(parse_path(text, "it", schemes=(scheme_of(text),))))


def schema_name(text: str) -> str:
    """The type of --schema: a preset's name, or a file of this machine."""
    return _typed(lambda: str(local_path(text, "it")))


_T = TypeVar("_T")


def _typed(parse: Callable[[], _T]) -> _T:
    """What `parse` returns; its error without a subject, for argparse names the argument itself."""
    try:
        return parse()
    except ConfigError as error:
        rule = str(error).removeprefix("it ").removesuffix(".")
        raise argparse.ArgumentTypeError(rule) from None


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """--config and --set, as `jobs.config.load_run_config` takes them."""
    parser.add_argument(
        "--config",
        type=local,
        metavar="FILE",
        help="YAML of a pipeline, see configs/ (default: defaults)",
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
        "--models",
        required=True,
        type=models_directory,
        metavar="DIR",
        help="the directory that TF Serving watches; local, or gs://",
    )
