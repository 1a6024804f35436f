"""`clickparity export`: gates on the parity report of a run, then publishes the same bytes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jobs.steps import export_run
from models.run_directory import RunDirectory

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Publishes RUN_DIR/export; exit 3 when a gate says no."""
    run = RunDirectory.open(arguments.run)
    published = export_run(run, Path(arguments.models), arguments.name)
    return published, published["message"]
