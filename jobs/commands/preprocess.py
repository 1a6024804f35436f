"""`clickparity preprocess`: raw click logs -> TFRecords (Beam options pass through)."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, add_config_arguments, input_pattern, local, schema_name

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.DATA
HELP = "raw click logs -> TFRecords (Beam options pass through)"
PASSES_BEAM_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--schema",
        required=True,
        type=schema_name,
        metavar="NAME|FILE",
        help="a preset such as criteo, or a YAML file",
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        type=input_pattern,
        metavar="GLOB",
        help="raw click logs",
    )
    parser.add_argument(
        "--out", required=True, type=local, metavar="DATA_DIR", help="a new or empty directory"
    )
    parser.add_argument(
        "--base-statistics",
        type=local,
        metavar="DIR",
        help="`statistics` folder of earlier data whose vocabulary ids are kept",
    )
    add_config_arguments(parser)


def main(arguments: argparse.Namespace) -> Answer:
    """Runs the Beam job, or says that it is done already."""
    from jobs.beam_options import check_beam_options
    from jobs.config import load_run_config
    from jobs.show.progress import block_progress, say
    from jobs.show.statistics import summary_table
    from pipeline.schema import FeatureSchema

    config = load_run_config(arguments.config, arguments.set)
    schema = FeatureSchema.load(arguments.schema)
    check_beam_options(arguments.beam_options)
    from pipeline.preprocessing.job import preprocess  # TensorFlow and Beam: after the refusals

    say(f"preprocessing {' '.join(arguments.input)} with schema {schema.name}")
    data = preprocess(
        schema,
        arguments.input,
        arguments.out,
        config.preprocess,
        base_statistics=arguments.base_statistics,
        beam_options=arguments.beam_options,
        progress=block_progress,
    )
    result = {"data": str(data.path), "fingerprint": data.fingerprint, **data.summary}
    return result, summary_table(data)
