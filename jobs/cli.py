"""The command line. Long work shows progress on stderr; `--json` prints the result as one object on stdout.

Exit codes: 0 done, 1 unexpected (a retry may help), 2 wrong configuration or arguments, 3 a gate said
no, 4 the input data is bad. 2, 3 and 4 are the caller's to fix, come without a traceback, and must not
be retried. 130 and 143: stopped by SIGINT or SIGTERM; the same command continues from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.command import Command, Group, commands
from jobs.logs import FORMATS, logging_to_stderr
from pipeline.errors import ClickparityError, ConfigError, Interrupted
from pipeline.machine_faults import machine_error
from pipeline.plain_text import plain

__all__ = ["entry_point", "main"]

_LOG = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are our errors (exit 2, one message)."""

    def error(self, message: str) -> Any:
        raise ConfigError(f"{self.prog}: {message}", None, f"See: {self.prog} --help.")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> None:
        """Prints it and exits."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("clickparity")
        except PackageNotFoundError:  # a checkout on sys.path that nobody installed
            found = "(not installed)"
        print(f"clickparity {found}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Every command and its options. Nothing heavy is imported."""
    known = commands()
    parser = _Parser(
        prog="clickparity",
        description="CTR models that score in production exactly as they scored in training.",
        epilog=_grouped(known),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="clickparity COMMAND [--help] ...",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    choices = parser.add_subparsers(
        dest="command",
        metavar="COMMAND",
        prog="clickparity",
        required=True,
        help=argparse.SUPPRESS,
    )
    for name, command in known.items():
        sub = choices.add_parser(name, description=f"{command.HELP[0].upper()}{command.HELP[1:]}.")
        command.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print the result as one JSON object")
        sub.add_argument(
            "--verbose", action="store_true", help="show the libraries' log lines, too"
        )
        sub.add_argument(
            "--log-format",
            choices=FORMATS,
            default="text",
            help="of the lines on stderr; json: an object a line (default: text)",
        )
        sub.set_defaults(main=command.main)
    return parser


def _grouped(known: Mapping[str, Command]) -> str:
    """The commands by what one wants, a line each."""
    width = max(map(len, known))
    lines = []
    for group in Group:
        members = [(name, command) for name, command in known.items() if command.GROUP is group]
        lines += [f"{group}:", *(f"  {n:<{width}}  {c.HELP}" for n, c in members), ""]
    return "\n".join([*lines, "clickparity COMMAND --help explains one of them."])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    structured = False
    with contextlib.ExitStack() as stack:
        try:
            arguments = _arguments(sys.argv[1:] if argv is None else list(argv))
            if arguments is None:
                return 0
            structured = arguments.log_format == "json"
            if arguments.verbose:
                os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"  # see pipeline.quiet; processes inherit it
            shown = logging_to_stderr(verbose=arguments.verbose, log_format=arguments.log_format)
            stack.enter_context(shown)
            result, text = arguments.main(arguments)
        except (ClickparityError, Interrupted) as error:
            print(f"clickparity: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            print("clickparity: stopped", file=sys.stderr)
            return 130
        except BrokenPipeError:
            sys.stderr.close()
            return 0
        except Exception as error:
            fault = machine_error(error)
            if fault is not None:
                print(f"clickparity: {fault}", file=sys.stderr)
                return fault.exit_code
            if not structured:
                raise
            _LOG.exception("unexpected error")
            return 1
    print(json.dumps(result, default=str) if arguments.json else plain(text, lines=True))
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace | None:
    """The parsed command line; None when it was empty and the help has been printed.

    Raises:
        ConfigError: an unknown command or argument.
    """
    parser = build_parser()
    if not argv:
        parser.print_help()
        return None
    _check_command(argv[0])
    arguments, rest = parser.parse_known_args(argv)
    if rest and not getattr(commands()[arguments.command], "PASSES_BEAM_OPTIONS", False):
        raise ConfigError(
            f"clickparity {arguments.command} has no such argument",
            " ".join(rest),
            f"See: clickparity {arguments.command} --help.",
        )
    arguments.beam_options = rest
    return arguments


def _check_command(name: str) -> None:
    """Refuses a command that does not exist, with the nearest one."""
    if not name.startswith("-") and name not in (known := commands()):
        from pipeline.strict_config import did_you_mean

        raise ConfigError("clickparity has no such command", repr(name), did_you_mean(name, known))


def entry_point() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry_point()
