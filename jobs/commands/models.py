"""`clickparity models`: list models, normalizations, losses and their options."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.MODEL
HELP = "list models, normalizations, losses and their options"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    del parser  # it has none of its own


def main(arguments: argparse.Namespace) -> Answer:
    """Lists them; needs no TensorFlow."""
    from jobs.show.choices import choices

    del arguments
    return choices()
