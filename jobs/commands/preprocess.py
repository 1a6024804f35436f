"""`clickparity preprocess`: raw click logs -> a data directory."""

from __future__ import annotations

import argparse
from typing import Any

from jobs.beam_options import check_beam_options
from jobs.config import load_run_config
from jobs.show.progress import block_progress, say
from jobs.show.tables import table
from pipeline.records.data_directory import DataDirectory
from pipeline.schema import FeatureSchema

__all__ = ["main", "summary_table"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Runs the Beam job, or says that it is done already."""
    config = load_run_config(arguments.config, arguments.set)
    schema = FeatureSchema.load(arguments.schema)
    check_beam_options(arguments.beam_options)
    from pipeline.preprocessing.job import preprocess

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
    return {"data": str(data.path), "fingerprint": data.fingerprint, **data.summary}, summary_table(
        data
    )


def summary_table(data: DataDirectory) -> str:
    """Where every input row went."""
    summary = data.summary
    total = summary["input_rows"] or 1
    rows: list[list[Any]] = []
    for name, split in summary["splits"].items():
        share = f"{split['input_rows'] / total:.2%}"
        rows.append(
            [name, split["input_rows"], share, f"{split['label_rate']:.4%}", split["shards"]]
        )
    for name in ("dropped_by_sampling", "rejected_rows"):
        rows.append([name.replace("_", " "), summary[name], f"{summary[name] / total:.2%}", "", ""])
    rows.append(["input rows", summary["input_rows"], "100.00%", "", ""])
    return table(["where", "rows", "share", "label rate", "shards"], rows, title=str(data.path))
