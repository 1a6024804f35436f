"""`clickparity synth`: a click log whose true probabilities are known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jobs.show.progress import say
from pipeline.step_directory import make_writable
from pipeline.synthetic.log import SyntheticLog, write_log
from pipeline.synthetic.sequences import SequenceLog

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Writes the log as CSV files."""
    kind = SequenceLog if arguments.sequences else SyntheticLog
    log = kind(
        num_rows=arguments.rows,
        ctr=arguments.ctr,
        num_days=arguments.days,
        seed=arguments.seed,
        drift=arguments.drift,
    )
    out = Path(arguments.out)
    make_writable(out)
    say(f"writing {arguments.rows:,} rows to {out}")
    files = [str(p) for p in write_log(log, out, num_files=arguments.files)]
    return {
        "files": files,
        "rows": arguments.rows,
    }, f"{arguments.rows:,} rows in {len(files)} files in {out}"
