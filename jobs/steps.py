"""The steps that take a pipeline's config. The others: `models.run_steps`, `serving.run_steps`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.config import RunConfig, load_publication_config
from jobs.show.progress import say
from models import run_steps
from models.trained_run import TrainedRun
from pipeline.paths import RemotePath
from pipeline.records.data_directory import DataDirectory
from serving.run_steps import Published, evidence_for_the_gates, publish_run

__all__ = ["publish_trained", "train_run"]


def train_run(
    data: DataDirectory, config: RunConfig, out: Path, *, progress: bool = True
) -> TrainedRun:
    """Trains (or goes on training) in `out`, then fits the calibration; see `models.run_steps.train_run`."""
    return run_steps.train_run(
        data,
        out,
        config.model,
        config.train,
        config.calibration,
        other_sections=config.run_sections(),
        progress=progress,
        say=say,
    )


def publish_trained(
    trained: TrainedRun,
    models_dir: str | Path | RemotePath,
    name: str | None = None,
    *,
    config: str | Path | None = None,
    settings: Sequence[str] = (),
) -> Published:
    """Publishes a proved run; options of its gates that are given with it are kept when it is published.

    Args:
        trained: the run.
        models_dir: what TF Serving watches.
        name: of the served model; None: export.name.
        config: a pipeline's YAML, whose `gate` and `export` replace the run's own.
        settings: overrides of both, as `--set` takes them.

    Raises:
        GateError: a gate says no; nothing is published.
        ConfigError: a setting of another section.
    """
    run = trained.run
    gate, export = load_publication_config(run.config, config, settings)
    if name:
        export = export.model_copy(update={"name": name})
    with evidence_for_the_gates():
        test = run_steps.evaluate_run(trained)
    published = publish_run(trained, test, models_dir, gate, export)
    asked = {c.label: c.model_dump(mode="json") for c in (gate, export)}
    if {label: run.config.get(label) for label in asked} != asked:
        run.with_sections(**asked).save_config()
    return published
