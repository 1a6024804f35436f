"""`clickparity schema infer`: a first schema from a sample of a file, to be read and corrected."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jobs.show.progress import say
from pipeline.errors import ConfigError
from pipeline.schema_inference.infer import infer_schema

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Prints the YAML, or writes it to --out; a file that is there is never overwritten."""
    out = Path(arguments.out) if arguments.out else None
    if out is not None and out.exists():
        raise ConfigError("--out must be a new file", str(out), "Remove it, or choose another.")
    if arguments.sample_rows < 1:
        raise ConfigError("--sample-rows must be 1 or more", arguments.sample_rows)
    if not Path(arguments.file).is_file() and "://" not in arguments.file:
        raise ConfigError("FILE must be a readable file", repr(arguments.file), "Check the path.")
    inferred = infer_schema(arguments.file, arguments.sample_rows, label=arguments.label)
    result = {"schema": inferred.schema.model_dump(mode="json"), "left_out": inferred.left_out}
    if out is None:
        return result, inferred.yaml.rstrip("\n")
    out.write_text(inferred.yaml)
    say(f"check {out}, then: clickparity preprocess --schema {out} --input GLOB --out DATA_DIR")
    return {**result, "out": str(out)}, f"{len(inferred.schema.features)} features in {out}"
