"""`clickparity serve-config`: write the files that TF Serving is started with."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from jobs.command import Answer, Group, add_models_argument, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

_LOG = logging.getLogger(__name__)

GROUP = Group.SERVE
HELP = "write the files that TF Serving is started with"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_models_argument(parser)
    parser.add_argument(
        "--out", required=True, type=local, metavar="DIR", help="where the files are written"
    )
    parser.add_argument("--name", help="only this model (required when --models is gs://)")
    parser.add_argument(
        "--base-path", metavar="DIR", help="the path of --models on the server (default: the same)"
    )
    parser.add_argument(
        "--batching",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="join several callers' rows into one batch, and their errors (default: no)",
    )
    parser.add_argument(
        "--num-batch-threads",
        type=int,
        default=os.cpu_count() or 4,
        help="with --batching: batches scored at once (default: CPU cores here)",
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Writes OUT/models.config and monitoring.config, with --batching batching_parameters.txt."""
    from pipeline.errors import ConfigError
    from pipeline.paths import RemotePath
    from serving.server.tensorflow_config import server_flags, write_server_config

    models_dir = arguments.models
    if isinstance(models_dir, RemotePath):
        names = [arguments.name] if arguments.name else []
        base = str(models_dir)
    else:
        if not models_dir.is_dir():
            raise ConfigError("--models must name a directory of models", str(models_dir))
        names = [arguments.name] if arguments.name else _published(models_dir)
        base = os.path.abspath(models_dir)
    base = arguments.base_path or base
    out, batching = arguments.out, arguments.batching
    written = write_server_config(
        out,
        models=names,
        base=base,
        batching=batching,
        num_batch_threads=arguments.num_batch_threads,
    )
    if batching:
        _LOG.warning(
            "batching: a request that the model refuses fails every request of its batch; "
            "PredictClient sends those again, other callers must"
        )
    flags = server_flags(os.path.abspath(out), batching=batching)
    result = {
        "files": [str(p) for p in written],
        "models": names,
        "batching": batching,
        "flags": flags,
    }
    return result, "\n".join(["tensorflow_model_server", *(f"    {flag}" for flag in flags)])


def _published(models_dir: Path) -> list[str]:
    """Models with at least one version."""
    return sorted(
        model.name
        for model in models_dir.iterdir()
        if model.is_dir()
        and not model.name.startswith(".")
        and any(v.name.isdecimal() and v.is_dir() for v in model.iterdir())
    )
