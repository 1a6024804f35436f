"""`clickparity schema`: write a first schema from a sample of a file."""

from __future__ import annotations

import argparse

from jobs.command import Answer, Group, input_pattern, local

__all__ = ["GROUP", "HELP", "add_arguments", "main"]

GROUP = Group.DATA
HELP = "write a first schema from a sample of a file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "action", choices=("infer",), help="infer: from the columns and values of FILE"
    )
    parser.add_argument(
        "file", type=input_pattern, metavar="FILE", help="CSV, TSV, JSON Lines or Parquet"
    )
    parser.add_argument(
        "--out", type=local, metavar="FILE", help="a new YAML file (default: print the schema)"
    )
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="the click column, where the values do not show which it is",
    )
    parser.add_argument(
        "--sample-rows",
        type=int,
        default=100_000,
        help="how many rows to look at (default: 100000)",
    )


def main(arguments: argparse.Namespace) -> Answer:
    """Prints the YAML, or writes it to --out; a file that is there is never overwritten."""
    from pathlib import Path

    from jobs.show.progress import say
    from pipeline.errors import ConfigError
    from pipeline.schema_inference.infer import infer_schema
    from pipeline.step_directory import make_writable, write_atomically

    out = Path(arguments.out) if arguments.out else None
    if out is not None and out.exists():
        raise ConfigError("--out must be a new file", str(out), "Remove it, or choose another.")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(
            "--out must lie in a folder that exists", str(out), f"Try: mkdir -p {out.parent}."
        )
    if arguments.sample_rows < 1:
        raise ConfigError("--sample-rows must be 1 or more", arguments.sample_rows)
    file = _file(arguments.file)
    inferred = infer_schema(file, arguments.sample_rows, label=arguments.label)
    result = {"schema": inferred.schema.model_dump(mode="json"), "left_out": inferred.left_out}
    if out is None:
        return result, inferred.yaml.rstrip("\n")
    make_writable(out.parent)
    write_atomically(out, inferred.yaml)
    say(f"check {out}, then: clickparity preprocess --schema {out} --input GLOB --out DATA_DIR")
    return {**result, "out": str(out)}, f"{len(inferred.schema.features)} features in {out}"


def _file(path: str) -> str:
    """The file to look at: of a folder the first that has rows.

    Raises:
        ConfigError: there is none, or it cannot be opened.
    """
    import os

    from jobs.show.progress import say
    from pipeline.errors import ConfigError
    from pipeline.input_listing import list_inputs
    from pipeline.paths import is_remote, open_for_reading, reachable

    if is_remote(path):
        with reachable(path, "FILE"), open_for_reading(path):
            return path
    if os.path.isdir(path):
        files = [file.path for file in list_inputs([path]).files if file.size]
        if not files:
            raise ConfigError("FILE must hold rows", f"{path}, a folder of empty files")
        say(f"looking at {files[0]}, the first of {len(files)} files")
        return files[0]
    if not os.path.isfile(path):
        raise ConfigError("FILE must be a readable file", repr(path), "Check the path.")
    return path
