"""`clickparity versions`: list the published versions of a model."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_models_argument

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.PUBLISH
HELP = "list the published versions of a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_models_argument(parser)
    parser.add_argument("--name", required=True, metavar="NAME", help="of the model")


def main(arguments: argparse.Namespace) -> Answer:
    """Number, time, fingerprint, metrics, who is live; needs no TensorFlow."""
    from jobs.show.tables import table
    from pipeline.errors import ConfigError
    from serving.repository.repository import ModelRepository

    found = ModelRepository(arguments.models, arguments.name).versions()
    if not found:
        raise ConfigError(
            "a model must have versions to list",
            f"none of {arguments.name!r} in {arguments.models}",
            "Check --models and --name, or publish first.",
        )
    listed = [
        {
            "version": v.number,
            "created": v.created.isoformat(timespec="seconds") if v.created else None,
            "fingerprint": v.fingerprint,
            "auc": v.metrics.get("auc"),
            "log_loss": v.metrics.get("log_loss"),
            "live": v.live,
            "rollback_of": v.rollback_of,
            "problem": v.problem,
        }
        for v in found
    ]
    rows = []
    for item in listed:
        note = "live" if item["live"] else ""
        if item["rollback_of"]:
            note += f" rollback of {item['rollback_of']}"
        if item["problem"]:
            note += f" {item['problem']}"
        time = str(item["created"] or "?").replace("T", " ")[:19]
        rows.append(
            [
                str(item["version"]),
                time,
                item["fingerprint"] or "?",
                item["auc"],
                item["log_loss"],
                note.strip(),
            ]
        )
    head = ["version", "created (UTC)", "fingerprint", "auc", "log loss", ""]
    return {"name": arguments.name, "versions": listed}, table(head, rows, title=arguments.name)
