"""The scheduled batch run, from raw logs to a published version.

    WORKDIR/data/<fingerprint>   WORKDIR/runs/<run id>   WORKDIR/models/<name>/<version>

What is done is not done again: a killed run goes on where it was, a second run with nothing changed does
nothing (and imports no TensorFlow). A changed option does again what depends on it, and no more.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.beam_options import check_beam_options
from jobs.config import RunConfig
from jobs.show.progress import say
from jobs.show.tables import table
from models.evaluation import Evaluation
from models.run_directory import RunDirectory, find_run, weights_identity
from models.run_steps import evaluate_run, is_calibrated, kept_evaluation
from pipeline.errors import ClickparityError, ConfigError
from pipeline.input_listing import InputListing, list_inputs
from pipeline.preprocessing.config import data_fingerprint
from pipeline.preprocessing.reject_limit import finished_data
from pipeline.records.data_directory import DataDirectory
from pipeline.reports import Report
from pipeline.schema import FeatureSchema
from pipeline.step_directory import exclusive, is_finished, make_writable
from serving.gates import drift_base_gate, drift_gate, quality_gate
from serving.repository.repository import ModelRepository
from serving.run_steps import Published, kept_parity, prove_run, publish_run

if TYPE_CHECKING:
    from pipeline.statistics.feature_statistics import FeatureStatistics

__all__ = ["RunResult", "run_pipeline"]


@dataclasses.dataclass(frozen=True)
class RunResult(Report):
    """What a run came to; RUN_DIR/result.json.

    Attributes:
        run, data: the directories.
        run_id: the name of the run's directory: of what its weights depend on.
        metrics: on the test split.
        parity: the value of each check by its name; text where it is not finite.
        published: the version.
        nothing_to_do: every step was done before.
    """

    run: str
    run_id: str
    data: str
    metrics: Evaluation
    parity: dict[str, float | str]
    published: Published
    nothing_to_do: bool


def run_pipeline(
    config: RunConfig, inputs: list[str], workdir: Path, *, beam_options: list[str] | None = None
) -> RunResult:
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
    check_beam_options(beam_options or [])
    listing = list_inputs(inputs)
    data_id = data_fingerprint(schema, listing, config.preprocess)
    run_id = weights_identity(config.model, config.train, data_id)
    run_dir, data_dir = workdir / "runs" / run_id, workdir / "data" / data_id
    done = _finished(config, run_dir, data_dir, data_id, repository)
    if done is not None:
        return done
    if not is_finished(data_dir, data_id):
        _check_model_suits(schema, listing, config)
    make_writable(workdir)
    lock = workdir / f".run-{run_id}.lock"
    with exclusive(lock):
        try:
            data = _preprocessed(schema, listing, data_dir, data_id, config, beam_options or [])
            _adopt(run_dir)
            return _trained_and_published(data, config, run_dir, workdir)
        finally:
            lock.unlink(missing_ok=True)


def _finished(
    config: RunConfig, run_dir: Path, data_dir: Path, data_id: str, repository: ModelRepository
) -> RunResult | None:
    """The result of a run that did all this before, and left it as it is; None when there is a step to do."""
    if not (run_dir / "result.json").exists() or not is_finished(data_dir, data_id):
        return None
    run = RunDirectory.open(run_dir)
    result = run.read_report("result.json", RunResult)
    test = kept_evaluation(run, "test")
    live = repository.live()
    steps = (
        is_finished(run_dir, run.fingerprint),
        run.config == config.run_sections(),
        run.is_trained and is_calibrated(run),
        test is not None and quality_gate(test, config.gate).passed,
        result.published.fingerprint == run.fingerprint,
        # A version that another run published since stays; damaged bytes of this one's do not.
        live is not None
        and (live.problem is None or live.fingerprint not in (None, run.fingerprint)),
        kept_parity(run, contents=False) is not None,
    )
    if not all(steps):
        return None
    finished_data(data_dir, config.preprocess)
    # A work directory may have been moved since.
    version = run_dir.parents[1] / "models" / repository.name / str(result.published.version)
    published = dataclasses.replace(result.published, path=str(version))
    return dataclasses.replace(
        result, run=str(run_dir), data=str(data_dir), published=published, nothing_to_do=True
    )


def _adopt(run_dir: Path) -> None:
    """Takes over a run that an earlier version of clickparity made under another id."""
    found = find_run(run_dir.parent, run_dir.name)
    if found != run_dir:
        say(f"going on with {found}, the same training under an older id")
        os.rename(found, run_dir)


def _preprocessed(
    schema: FeatureSchema,
    listing: InputListing,
    data_dir: Path,
    data_id: str,
    config: RunConfig,
    beam_options: list[str],
) -> DataDirectory:
    if is_finished(data_dir, data_id):
        say(f"[1/5] preprocess: done before, {data_dir}")
        return finished_data(data_dir, config.preprocess)
    say(f"[1/5] preprocess -> {data_dir}")
    from jobs.show.progress import block_progress
    from pipeline.preprocessing.job import preprocess

    return preprocess(
        schema,
        listing,
        data_dir,
        config.preprocess,
        beam_options=beam_options,
        progress=block_progress,
    )


def _check_model_suits(schema: FeatureSchema, listing: InputListing, config: RunConfig) -> None:
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
    wants_rows = config.train.early_stopping not in (None, "auto")
    if wants_rows and split.by != "column" and not split.validation:
        raise ConfigError(
            "early stopping needs validation rows",
            "split.validation=0 in the schema",
            "Give it a share in the schema's `split`, or leave train.early_stopping out.",
        )
    resolved = schema if schema.is_resolved else plan_blocks(schema, listing).schema
    build_model(config.model, encoded_spec(resolved, None))


def _trained_and_published(
    data: DataDirectory, config: RunConfig, run_dir: Path, workdir: Path
) -> RunResult:
    from jobs.steps import train_run

    _drift_gate(data, config, workdir)
    say(f"[2/5] train -> {run_dir}")
    trained = train_run(data, config, run_dir)
    run = trained.run
    say("[3/5] evaluate")
    metrics = evaluate_run(trained)
    say("[4/5] parity")
    parity = prove_run(trained, say=say)
    say(f"[5/5] export and publish as {config.export.name}")
    published = publish_run(trained, metrics, workdir / "models", config.gate, config.export)
    values = {c["name"]: c["value"] for c in parity.to_json()["checks"]}
    result = RunResult(
        str(run.path), run_dir.name, str(data.path), metrics, values, published, nothing_to_do=False
    )
    run.write_json("result.json", result.to_json())
    run.finish()
    return result


def _base_of(
    before: Path, data: DataDirectory, config: RunConfig
) -> tuple[FeatureStatistics | None, str]:
    """What the live version was trained on, to compare with; or None, and why there is nothing."""
    from pipeline.statistics.feature_statistics import FeatureStatistics

    if not is_finished(before):
        return None, f"{before} (gone)"
    try:
        has_same_schema = DataDirectory.open(before).schema == data.schema
        base = FeatureStatistics.load(before / "statistics")
    except (ClickparityError, OSError, LookupError, TypeError, ValueError) as error:
        return None, f"{before} (damaged: {error})"
    if has_same_schema or config.drift.allow_schema_change:
        return base, ""
    return None, f"{before}, which has another schema (see drift.allow_schema_change)"


def _drift_gate(data: DataDirectory, config: RunConfig, workdir: Path) -> None:
    """Holds today's statistics against those of the data that the live version was trained on.

    Raises:
        GateError: they drifted further apart than `drift` in the config allows, or there is nothing to
            hold them against and the config does not accept that.
    """
    from pipeline.statistics.drift import compare_statistics
    from pipeline.statistics.feature_statistics import FeatureStatistics

    live = ModelRepository(workdir / "models", config.export.name).live()
    if live is None:
        return  # the first version
    accepted = live.manifest.extra.get("data_fingerprint") if live.manifest else None
    before = workdir / "data" / str(accepted)
    if accepted == data.fingerprint:
        return
    base, missing = None, f"version {live.number}: {live.problem or 'it names no data'}"
    if accepted is not None:
        base, missing = _base_of(before, data, config)
    if base is None:
        drift_base_gate(missing, config.drift.allow_missing_base).raise_if_refused()
        say(f"drift: not compared, as drift.allow_missing_base says: {missing}")
        return
    say(f"drift: against {before}")
    today = FeatureStatistics.load(data.path / "statistics")
    report = compare_statistics(today, base, config.drift)
    verdict = drift_gate(report)
    if not verdict.passed:
        say(table(report.HEADER, report.table_rows(), title=f"{data.path} against {before}"))
    verdict.raise_if_refused()
