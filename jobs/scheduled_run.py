"""The scheduled batch run, from raw logs to a published version.

    WORKDIR/data/<fingerprint>   WORKDIR/runs/<run id>   WORKDIR/models/<name>/<version>

What is done is not done again: a killed run goes on where it was, a second run with nothing changed does
nothing (and imports no TensorFlow).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.beam_options import check_beam_options
from jobs.config import RunConfig
from jobs.show.progress import say
from jobs.show.tables import table
from models.run_directory import RunDirectory, run_fingerprint
from pipeline.errors import ConfigError, GateError
from pipeline.paths import expand_inputs
from pipeline.preprocessing.config import data_fingerprint
from pipeline.records.data_directory import DataDirectory
from pipeline.schema import FeatureSchema
from pipeline.step_directory import exclusive, is_finished, make_writable
from serving.repository.repository import ModelRepository

__all__ = ["run_pipeline"]


def run_pipeline(
    config: RunConfig, inputs: list[str], workdir: Path, *, beam_options: list[str] | None = None
) -> dict[str, Any]:
    """Preprocess, train, evaluate, parity, export and publish; returns what came out.

    Raises:
        ConfigError, DataError, GateError: see the exit codes of `jobs.cli`.
    """
    if not config.schema:
        raise ConfigError(
            "a run needs a schema",
            "none",
            "Write `schema: criteo` into the config, or --set schema=criteo.",
        )
    if not inputs:
        raise ConfigError("a run needs input files", "none", "Give --input GLOB.")
    schema = FeatureSchema.load(config.schema)
    repository = ModelRepository(workdir / "models", config.export.name)  # refuses a bad name now
    data_id = data_fingerprint(schema, expand_inputs(inputs), config.preprocess)
    run_id = run_fingerprint(config.run_sections(), data_id)
    run_dir, data_dir = workdir / "runs" / run_id, workdir / "data" / data_id
    known = run_dir / "result.json"
    if is_finished(run_dir, run_id) and known.exists() and repository.live():
        return {**RunDirectory.open(run_dir).read_json(known.name), "nothing_to_do": True}
    check_beam_options(beam_options or [])
    if not is_finished(data_dir, data_id):
        _check_model_suits(schema, inputs, config)
    make_writable(workdir)
    lock = workdir / f".run-{run_id}.lock"
    with exclusive(lock):
        try:
            data = _preprocessed(schema, inputs, data_dir, data_id, config, beam_options or [])
            return _trained_and_published(data, config, run_dir, workdir)
        finally:
            lock.unlink(missing_ok=True)


def _preprocessed(
    schema: FeatureSchema,
    inputs: list[str],
    data_dir: Path,
    data_id: str,
    config: RunConfig,
    beam_options: list[str],
) -> DataDirectory:
    if is_finished(data_dir, data_id):
        say(f"[1/5] preprocess: done before, {data_dir}")
        return DataDirectory.open(data_dir)
    say(f"[1/5] preprocess -> {data_dir}")
    from jobs.show.progress import block_progress
    from pipeline.preprocessing.job import preprocess

    return preprocess(
        schema,
        inputs,
        data_dir,
        config.preprocess,
        beam_options=beam_options,
        progress=block_progress,
    )


def _check_model_suits(schema: FeatureSchema, inputs: list[str], config: RunConfig) -> None:
    """Refuses before a long job what would be refused after it.

    The model is built once for the columns that the schema promises (with empty vocabularies).

    Raises:
        ConfigError: the model needs a feature that the schema lacks, or validation rows that the
            split does not give.
    """
    from models.zoo import build_model
    from pipeline.sources import plan_blocks
    from pipeline.transform.spec import encoded_spec

    split = schema.split
    if config.train.early_stopping and split.by != "column" and not split.validation:
        raise ConfigError(
            "early stopping needs validation rows",
            "split.validation=0 in the schema",
            "Give it a share in the schema's `split`, or leave train.early_stopping out.",
        )
    resolved = schema if schema.is_resolved else plan_blocks(schema, inputs).schema
    build_model(config.model, encoded_spec(resolved, None))


def _trained_and_published(
    data: DataDirectory, config: RunConfig, run_dir: Path, workdir: Path
) -> dict[str, Any]:
    from jobs.steps import evaluate_run, export_run, parity_run, train_run

    _drift_gate(data, config, workdir)
    say(f"[2/5] train -> {run_dir}")
    run = train_run(data, config, run_dir)
    say("[3/5] evaluate")
    metrics = evaluate_run(run)
    say("[4/5] parity")
    parity = parity_run(run)
    say(f"[5/5] export and publish as {config.export.name}")
    published = export_run(run, workdir / "models", config.export.name)
    result = {
        "run": str(run.path),
        "run_id": run.fingerprint,
        "data": str(data.path),
        "metrics": {k: v for k, v in metrics.items() if k != "raw"},
        "parity": {c["name"]: c["value"] for c in parity["checks"]},
        "published": published,
    }
    run.write_json("result.json", result)
    run.finish()
    return {**result, "nothing_to_do": False}


def _drift_gate(data: DataDirectory, config: RunConfig, workdir: Path) -> None:
    """Holds today's statistics against those of the data that the live version was trained on.

    Raises:
        GateError: they drifted further apart than `drift` in the config allows.
    """
    from pipeline.statistics.drift import compare_statistics
    from pipeline.statistics.feature_statistics import FeatureStatistics
    from serving.repository.repository import ModelRepository

    live = ModelRepository(workdir / "models", config.export.name).live()
    accepted = live.manifest.extra.get("data_fingerprint") if live and live.manifest else None
    before = workdir / "data" / str(accepted)
    if accepted in (None, data.fingerprint) or not is_finished(before):
        return
    if DataDirectory.open(before).schema != data.schema and not config.drift.allow_schema_change:
        say("drift: the schema changed since the live version was trained; not compared")
        return
    say(f"drift: against {before}")
    report = compare_statistics(
        FeatureStatistics.load(data.path / "statistics"),
        FeatureStatistics.load(before / "statistics"),
        config.drift,
    )
    try:
        report.raise_if_drifted()
    except GateError:
        say(table(report.HEADER, report.table_rows(), title=f"{data.path} against {before}"))
        raise
