"""`clickparity synth`: write a click log whose true click probabilities are known."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.DATA
HELP = "write a click log whose true click probabilities are known"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--out", required=True, type=local, metavar="DIR", help="where the CSV files are written"
    )
    parser.add_argument("--rows", required=True, type=int, help="of all files together")
    parser.add_argument(
        "--ctr", type=float, default=0.02, help="mean click probability (default: 0.02)"
    )
    parser.add_argument("--days", type=int, default=7, help="that the log covers (default: 7)")
    parser.add_argument(
        "--seed", type=int, default=0, help="another one gives other rows (default: 0)"
    )
    parser.add_argument(
        "--drift", type=float, default=1.0, help="scale of the day-to-day drift (default: 1)"
    )
    parser.add_argument("--files", type=int, default=4, help="how many CSV files (default: 4)")
    parser.add_argument(
        "--sequences",
        action="store_true",
        help="add contextual, clicked and unclicked ads (--schema synthetic_sequences)",
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Writes the log as CSV files."""
    from jobs.show.progress import say
    from pipeline.step_directory import make_writable
    from pipeline.synthetic.log import SyntheticLog, write_log
    from pipeline.synthetic.sequences import SequenceLog

    kind = SequenceLog if arguments.sequences else SyntheticLog
    log = kind(
        num_rows=arguments.rows,
        ctr=arguments.ctr,
        num_days=arguments.days,
        seed=arguments.seed,
        drift=arguments.drift,
    )
    out = arguments.out
    make_writable(out)
    say(f"writing {arguments.rows:,} rows to {out}")
    files = [str(p) for p in write_log(log, out, num_files=arguments.files)]
    result = {"files": files, "rows": arguments.rows}
    return result, f"{arguments.rows:,} rows in {len(files)} files in {out}"
