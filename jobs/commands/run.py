"""`clickparity run`: the scheduled batch run: preprocess, train, evaluate, parity, publish."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_config_arguments, input_pattern, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.OPERATE
HELP = "the scheduled batch run: preprocess, train, evaluate, parity, publish"
PASSES_BEAM_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--input", nargs="+", default=[], type=input_pattern, metavar="GLOB", help="raw click logs"
    )
    parser.add_argument(
        "--workdir",
        default="workdir",
        type=local,
        metavar="DIR",
        help="holds data/, runs/ and models/ (default: workdir)",
    )
    add_config_arguments(parser)


def main(arguments: argparse.Namespace) -> Answer:
    """Runs what is not done yet."""
    from jobs.config import load_run_config
    from jobs.scheduled_run import run_pipeline
    from jobs.show.metrics import run_text

    config = load_run_config(arguments.config, arguments.set)
    result = run_pipeline(
        config, arguments.input, arguments.workdir, beam_options=arguments.beam_options
    )
    return result.to_json(), run_text(result)
