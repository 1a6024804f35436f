"""The steps that take a trained run into service: prove it, ask the gates, publish it.

Each finds out by itself whether it is done; TensorFlow is imported only when there is something to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from models.evaluation import Metrics
from models.run_directory import RunDirectory
from pipeline.errors import ConfigError, DataError, GateError
from pipeline.paths import RemotePath
from pipeline.reports import Report
from serving.export.manifest import verify_manifest
from serving.gates import (
    ExportConfig,
    GateConfig,
    Verdict,
    batch_gap_gate,
    held_out_gate,
    parity_gate,
    quality_gate,
    source_gate,
    training_gate,
)
from serving.parity.outcome import CHECKS_VERSION, ParityReport, export_digest
from serving.repository.repository import ModelRepository, PublishOutcome

if TYPE_CHECKING:
    from models.trained_run import TrainedRun
    from serving.loader.loader_choice import LoaderUse

__all__ = [
    "Published",
    "ask_gates",
    "evidence_for_the_gates",
    "kept_parity",
    "prove_run",
    "publish_run",
]


def kept_parity(run: RunDirectory, *, contents: bool = True) -> ParityReport | None:
    """The parity report of a run, where it is of the model as it is now and of the export as it stands.

    Args:
        run: the run.
        contents: hash the export's files; False compares names and sizes only.
    """
    if not run.has("parity.json"):
        return None
    with contextlib.suppress(ConfigError, GateError):  # missing or damaged: made anew
        report = run.read_report("parity.json", ParityReport)
        manifest = verify_manifest(run.path / "export", contents=contents)
        is_of_now = report.run == manifest.fingerprint == run.fingerprint
        is_of_now &= report.version == CHECKS_VERSION and source_gate(run, manifest).passed
        if is_of_now and export_digest(run.path / "export") == report.export_digest:
            return report
    return None


@contextlib.contextmanager
def evidence_for_the_gates() -> Iterator[None]:
    """While what the gates judge is read: to have none, or damaged evidence, is a no (exit 3), too.

    Raises:
        GateError: for the ConfigError or DataError that the reader raises, with its remedy.
    """
    try:
        yield
    except (ConfigError, DataError) as error:
        raise GateError(error.rule, error.received, error.remedy) from None


def prove_run(
    trained: TrainedRun,
    *,
    against: TrainedRun | None = None,
    cpp_loader: LoaderUse = "auto",
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> ParityReport:
    """Builds the export and proves it, unless that is done for the export as it stands.

    Args:
        trained: the run.
        against: another run, for the check `metric`.
        cpp_loader: see `serving.loader.loader_choice`.
        force: even if it is done.
        say: called with a line before each check.
    """
    kept = None if force else kept_parity(trained.run)
    if kept is not None:
        return kept
    from serving.parity.suite import run_parity

    return run_parity(trained, against=against, cpp_loader=cpp_loader, say=say)


def ask_gates(
    run: RunDirectory, test: Metrics, bars: GateConfig, export: ExportConfig, command: str
) -> tuple[Verdict, ...]:
    """What each gate says of RUN_DIR/export: parity, its source, the batch gap, quality.

    Args:
        run: with parity.json and an export.
        test: its metrics on the test split.
        bars: the config's section `gate`.
        export: the config's section `export`.
        command: what publishes the run, for the remedies.

    Raises:
        GateError: the export is not as its manifest says; parity was not run, or its report is damaged.
    """
    with evidence_for_the_gates():
        report = run.read_report("parity.json", ParityReport)
    export_dir = run.path / "export"
    if not export_dir.is_dir():
        raise GateError(
            "a run must have its export",
            f"{export_dir} (missing)",
            f"Run: clickparity parity --run {run.path}.",
        )
    manifest = verify_manifest(export_dir)
    with evidence_for_the_gates():
        source = source_gate(run, manifest)
    return (
        parity_gate(report, run, export_digest(export_dir)),
        source,
        batch_gap_gate(report, export.accept_batch_gap, command),
        quality_gate(test, bars),
    )


@dataclasses.dataclass(frozen=True)
class Published(Report):
    """What publishing a run came to.

    Attributes:
        name: of the model.
        version: that is live now.
        path: where it lies.
        fingerprint: of the run.
        outcome: whether it was published, and if not, why.
        message: the same for people, one sentence.
    """

    name: str
    version: int
    path: str
    fingerprint: str
    outcome: PublishOutcome
    message: str


def publish_run(
    trained: TrainedRun,
    test: Metrics,
    models_dir: str | Path | RemotePath,
    bars: GateConfig,
    export: ExportConfig,
) -> Published:
    """Asks the gates, then publishes the very bytes that were checked.

    Args:
        trained: the run, proved.
        test: its metrics on the test split.
        models_dir: what TF Serving watches.
        bars: the config's section `gate`.
        export: the config's section `export`.

    Raises:
        GateError: a gate says no, or what it asks for is missing or damaged; nothing is published.
    """
    run = trained.run
    where = ["--run", str(run.path), "--models", str(models_dir), "--name", export.name]
    command = shlex.join(["clickparity", "export", *where])
    for verdict in ask_gates(run, test, bars, export, command):
        verdict.raise_if_refused()
    repository = ModelRepository(models_dir, export.name)

    def check(export_dir: Path) -> None:
        from serving.held_out import measure_export
        from serving.repository.version_check import loads_and_answers

        loads_and_answers(export_dir)
        with evidence_for_the_gates():
            data = trained.data
        training_gate(data.label_rate("train"), bars).raise_if_refused()
        measured = measure_export(export_dir, data)
        held_out_gate(measured, test, bars, run.path).raise_if_refused()

    answer = repository.publish(run.path / "export", check=check)
    return Published(
        export.name,
        answer.number,
        str(answer.path),
        answer.fingerprint,
        answer.outcome,
        answer.message,
    )
