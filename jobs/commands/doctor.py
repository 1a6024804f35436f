"""`clickparity doctor`: what this machine has for the commands, and what it lacks."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.START
HELP = "what this machine has for the commands, and what it lacks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--workdir",
        default=".",
        type=local,
        metavar="DIR",
        help="where runs will be written (default: here)",
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Lists every finding; exit 2 when something that every run needs is missing."""
    import dataclasses
    import json

    from jobs.doctor import Status, probes
    from jobs.show.progress import say
    from jobs.show.tables import table
    from pipeline.errors import ConfigError

    findings = [probe() for probe in probes(arguments.workdir)]
    broken = [f for f in findings if f.status is Status.BROKEN]
    result = {"ok": not broken, "findings": [dataclasses.asdict(f) for f in findings]}
    text = table(["", "", "found"], [[f.name, f.status.value, f.found] for f in findings])
    text = "\n".join([text, *(f"{f.name}: {f.remedy}" for f in findings if f.remedy)])
    if broken:
        if arguments.json:
            print(json.dumps(result))
        else:
            say(text)
        what = "; ".join(f"{f.name}: {f.found}" for f in broken)
        raise ConfigError("every run needs a working core", what, broken[0].remedy)
    return result, text
