"""`clickparity score`: batch prediction with an exported model (Beam options pass through)."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, input_pattern, local, schema_name

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.MODEL
HELP = "batch prediction with an exported model (Beam options pass through)"
PASSES_BEAM_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--model",
        required=True,
        type=local,
        metavar="DIR",
        help="an export, a published version, or MODELS/NAME (its latest version)",
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        type=input_pattern,
        metavar="GLOB",
        help="files of raw rows",
    )
    parser.add_argument(
        "--out", required=True, type=local, metavar="DIR", help="a new or empty directory"
    )
    parser.add_argument(
        "--schema",
        type=schema_name,
        metavar="NAME|FILE",
        help="layout of the files (default: as the training data)",
    )
    parser.add_argument(
        "--format",
        choices=("parquet", "csv"),
        default="parquet",
        help="of the scores (default: parquet)",
    )
    parser.add_argument(
        "--max-reject-rate",
        type=float,
        default=0.01,
        help="fail above this share of unreadable rows (default: 0.01)",
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Scores the files, or says that it is done already."""
    from jobs.beam_options import check_beam_options
    from jobs.scoring import score_files
    from jobs.show.progress import block_progress, say
    from jobs.show.tables import table

    check_beam_options(arguments.beam_options)
    say(f"scoring {' '.join(arguments.input)} with {arguments.model}")
    summary = score_files(
        arguments.model,
        arguments.input,
        arguments.out,
        schema=arguments.schema,
        output=arguments.format,
        max_reject_rate=arguments.max_reject_rate,
        beam_options=arguments.beam_options,
        progress=block_progress,
    )
    rows = [[n.replace("_", " "), summary[n]] for n in ("scored_rows", "rejected_rows")]
    rows += [["input rows", summary["input_rows"]], ["model", summary["model_fingerprint"]]]
    return {"out": str(arguments.out), **summary}, table(["", ""], rows, title=str(arguments.out))
