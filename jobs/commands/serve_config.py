"""`clickparity serve-config`: writes the files that TF Serving is started with."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from serving.server.tensorflow_config import server_flags, write_server_config

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Writes OUT/models.config, monitoring.config and batching_parameters.txt."""
    models_dir = Path(arguments.models)
    if "://" in arguments.models:
        names = [arguments.name] if arguments.name else []
        base = arguments.models
    else:
        if not models_dir.is_dir():
            raise ConfigError("--models must name a directory of models", arguments.models)
        names = [arguments.name] if arguments.name else _published(models_dir)
        base = os.path.abspath(arguments.models)
    base = arguments.base_path or base
    threads = arguments.num_batch_threads
    out = Path(arguments.out)
    written = write_server_config(out, models=names, base=base, num_batch_threads=threads)
    flags = server_flags(os.path.abspath(out))
    result = {"files": [str(p) for p in written], "models": names, "flags": flags}
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
