"""Batch prediction: files scored with an exported SavedModel.

OUT/part-00000-of-00004.parquet   file, row (from 0, in its file), probability, logit
OUT/rejects/*.jsonl               rows that could not be read: file, offset, reason, raw
OUT/summary.json  OUT/_SUCCESS    where every input row went; the fingerprint
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.show.progress import say
from pipeline.errors import ConfigError, GateError
from pipeline.input_listing import InputListing, list_inputs
from pipeline.paths import local_path
from pipeline.schema import FeatureSchema
from pipeline.step_directory import fingerprint_of, is_finished, step_directory
from serving.export.manifest import MANIFEST_PATH, Manifest, file_sizes, verify_manifest

__all__ = ["DEFAULT_MAX_REJECT_RATE", "export_of", "score_files"]

SCHEMA_PATH = "assets.extra/schema.yaml"
DEFAULT_MAX_REJECT_RATE = 0.01
_FORMAT_VERSION = 1
_BLOCK_BYTES = 8 << 20


def score_files(
    model: str | Path,
    inputs: Sequence[str] | InputListing,
    out: str | Path,
    *,
    schema: str | Path | None = None,
    output: str = "parquet",
    max_reject_rate: float = DEFAULT_MAX_REJECT_RATE,
    block_bytes: int = _BLOCK_BYTES,
    beam_options: list[str] | None = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Scores files into `out`, unless that is done.

    Args:
        model: an export, a published version, or a model's directory (its latest version).
        inputs: paths and globs, or the files listed already.
        out: a new or empty directory.
        schema: how the files are laid out, where they are not laid out as the training data was.
        output: "parquet" or "csv".
        max_reject_rate: above this share of unreadable rows the job fails.
        block_bytes: size of the pieces that text files are cut into.
        beam_options: Beam's own.
        progress: see `pipeline.preprocessing.job.Progress`.

    Returns:
        The contents of summary.json.

    Raises:
        ConfigError: no such model, one without a schema, or a layout that lacks its inputs.
        GateError: the export is damaged.
        DataError: too many rejects, no rows, or a file that cannot be read or changes while it is read.
    """
    if not 0 <= max_reject_rate <= 1:
        raise ConfigError("--max-reject-rate must lie in 0 .. 1", max_reject_rate)
    out, export_dir = local_path(out, "out"), export_of(local_path(model, "model"))
    listing = list_inputs(inputs)
    manifest = verify_manifest(export_dir)
    layout = _layout(export_dir, manifest, schema)
    digest = {path: record.sha256 for path, record in manifest.files.items()}
    asked = (digest, layout.fingerprint(), listing.fingerprint_parts)
    fingerprint = fingerprint_of(
        "score", _FORMAT_VERSION, *asked, output, block_bytes, DEFAULT_MAX_REJECT_RATE
    )
    done = _kept_summary(out, max_reject_rate) if is_finished(out, fingerprint) else None
    if done is not None:
        return done
    return _score(
        export_dir,
        manifest,
        layout,
        listing,
        out,
        fingerprint,
        output=output,
        limit=max_reject_rate,
        block_bytes=block_bytes,
        beam_options=beam_options or [],
        progress=progress,
    )


def _score(
    export_dir: Path,
    manifest: Manifest,
    layout: FeatureSchema,
    listing: InputListing,
    out: Path,
    fingerprint: str,
    *,
    output: str,
    limit: float,
    block_bytes: int,
    beam_options: list[str],
    progress: Any,
) -> dict[str, Any]:
    from pipeline.sources import plan_blocks
    from serving.batch_scoring import ScorePlan, check_reject_rate, run_scoring

    read = plan_blocks(layout, listing, block_bytes=block_bytes)
    _check_inputs(read.schema, manifest)
    with step_directory(out, fingerprint) as staging:
        plan = ScorePlan(
            export_dir=str(export_dir.resolve()),
            fingerprint=manifest.fingerprint,
            schema=read.schema,
            staging=str(staging),
            output=output,  # type: ignore[arg-type]  # argparse allows no other
            num_blocks=len(read.blocks),
        )
        counts = run_scoring(plan, read.blocks, beam_options=beam_options, progress=progress)
        check_reject_rate(counts, limit)
        listing.check_unchanged()
        for name in ("spill", "progress"):
            shutil.rmtree(staging / name)
        summary = {
            **counts,
            "input_files": len(listing.files),
            "input_bytes": listing.size,
            "parts": len(list(staging.glob("part-*"))),
            "format": output,
            "model_fingerprint": manifest.fingerprint,
            "model_path": str(export_dir),
            "norm": manifest.extra.get("norm"),
            "files": file_sizes(staging),
        }
        (staging / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _kept_summary(out: Path, limit: float) -> dict[str, Any] | None:
    """summary.json of a finished directory; None, and no directory, when a file is not as it was written.

    A reject limit changes no score: finished scores are held against another one than theirs, too.

    Raises:
        DataError: more rows were rejected than the limit allows.
    """
    try:
        summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
        found = file_sizes(out)
    except (OSError, ValueError, GateError):
        summary, found = {"files": {"summary.json": -1}}, {}
    # Directories of earlier versions do not hold the sizes.
    if any(found.get(name) != size for name, size in summary.get("files", {}).items()):
        say(f"{out} is not as it was written: scoring again")
        shutil.rmtree(out)
        return None
    if summary["rejected_rows"] > limit * summary["input_rows"]:
        from serving.batch_scoring import check_reject_rate

        check_reject_rate(summary, limit)
    say(f"nothing to do: {out} holds these scores")
    return summary


def export_of(model: Path) -> Path:
    """The SavedModel directory that `--model` means: itself, or its latest published version.

    Raises:
        ConfigError: there is none.
    """
    if (model / MANIFEST_PATH).is_file():
        return model
    versions = [p for p in model.glob("*") if p.name.isdecimal() and (p / MANIFEST_PATH).is_file()]
    if not versions:
        raise ConfigError(
            "--model must name an export, a published version or a model's directory",
            f"{model} ({'no ' + MANIFEST_PATH if model.is_dir() else 'no such directory'})",
            "Try RUN_DIR/export or MODELS_DIR/NAME.",
        )
    return max(versions, key=lambda path: int(path.name))


def _layout(export_dir: Path, manifest: Manifest, schema: str | Path | None) -> FeatureSchema:
    """How the files are laid out, without label, time and split: for scoring nobody needs them.

    Texts are read by the rules of the model, whoever wrote the schema.
    """
    rules = {"rules": manifest.extra.get("value_rules", 1)}
    if schema is not None:
        return FeatureSchema.load(schema).inputs_only().model_copy(update=rules)
    path = export_dir / SCHEMA_PATH
    if not path.is_file():
        raise ConfigError(
            "the export must carry its schema",
            f"no {SCHEMA_PATH} in {export_dir}",
            "It is older than `score`: name the schema with --schema, or export again.",
        )
    found = FeatureSchema.from_yaml(path.read_text(), str(path)).inputs_only()
    return found.model_copy(update=rules)


def _check_inputs(schema: FeatureSchema, manifest: Manifest) -> None:
    """The layout's columns must be the model's inputs, in its order.

    Raises:
        ConfigError: they are not.
    """
    expected = manifest.extra["inputs"]
    given = {
        "numbers": list(schema.input_numbers),
        "texts": list(schema.input_texts),
        "images": list(schema.input_images),
    }
    for kind, columns in given.items():
        if columns != expected[kind]:
            differing = sorted(set(columns) ^ set(expected[kind])) or columns
            raise ConfigError(
                "the layout must have the model's inputs, in their order",
                f"{kind} differ in {', '.join(differing[:5])}",
                f"Use the schema that the model was trained with ({SCHEMA_PATH} of the export).",
            )
