"""`clickparity export`: gate on the parity report, then publish the same bytes."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_config_arguments, add_models_argument, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.PUBLISH
HELP = "gate on the parity report, then publish the same bytes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--run", required=True, type=local, metavar="RUN_DIR", help="a run that `parity` has passed"
    )
    add_models_argument(parser)
    parser.add_argument(
        "--name", metavar="NAME", help="of the served model; default: the config's export.name"
    )
    add_config_arguments(parser)


def main(arguments: argparse.Namespace) -> Answer:
    """Publishes RUN_DIR/export; exit 3 when a gate says no.

    The run's own gate and export options hold; --config and --set replace them, and are kept.
    """
    from jobs.steps import publish_trained
    from models.trained_run import TrainedRun

    published = publish_trained(
        TrainedRun(arguments.run),
        arguments.models,
        arguments.name,
        config=arguments.config,
        settings=arguments.set,
    )
    return published.to_json(), published.message
