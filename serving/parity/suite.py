"""Builds RUN_DIR/export, runs every parity check on those bytes, writes what they came to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models.trained_run import TrainedRun
from pipeline.transform.parity_sample import real_rows
from serving.export.build import build_export, serving_module
from serving.export.signatures import ServingModule
from serving.loader.loader_choice import Loader, LoaderUse, find_loader
from serving.parity import checks, replica
from serving.parity.batch_norm import batch_norm_checks
from serving.parity.export_checks import ask, export_equality, transform_equality
from serving.parity.hostile_rows import hostile_rows
from serving.parity.metric import metric_difference
from serving.parity.outcome import Check, ParityReport, export_digest
from serving.parity.report import write_report
from serving.parity.server_check import server_equality

__all__ = ["ROWS", "run_parity"]

ROWS = 1024  # real rows that the checks look at: a batch of 1000, and some


def run_parity(
    trained: TrainedRun,
    *,
    against: TrainedRun | None = None,
    cpp_loader: LoaderUse = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> ParityReport:
    """Builds the export and checks it; writes parity.json and parity.html.

    Args:
        trained: the run.
        against: another run on the same data, whose metrics are held against this one's.
        cpp_loader: whether the export check also asks TF Serving's C++ loader, see `find_loader`.
        say: called with a line before each check.
    """
    say("building the export")
    run, module = trained.run, serving_module(trained)
    export_dir = build_export(trained, module)
    loader = find_loader(cpp_loader, say)
    found: list[Check] = []
    for name, step in _steps(trained, module, export_dir, loader, against):
        say(f"checking parity: {name}")
        found += step()
    report = ParityReport(
        run.fingerprint,
        run.model_config.name,
        run.model_config.norm.kind,
        export_digest(export_dir),
        module.model.has_batch_statistics,
        tuple(found),
    )
    run.write_json("parity.json", report.to_json())
    write_report(run.path / "parity.html", [report])
    return report


def _steps(
    trained: TrainedRun,
    module: ServingModule,
    export_dir: Path,
    loader: Loader,
    against: TrainedRun | None,
) -> list[tuple[str, Callable[[], list[Check]]]]:
    """What is checked, in order: its name for the progress, and the checks that it makes."""
    run, data, model = trained.run, trained.data, module.model
    real, encoded = real_rows(data, ROWS)

    def in_a_fresh_process() -> list[Check]:
        hostile = hostile_rows(data.schema, real)
        asked = [
            transform_equality(module, real, encoded, hostile),
            export_equality(module, export_dir, real, encoded, loader=loader),
        ]
        return ask(export_dir, asked)

    def replica_check() -> Check:
        uses = model.has_batch_statistics
        return replica.replica_equality(run, encoded, has_batch_statistics=uses)

    steps: list[tuple[str, Callable[[], list[Check]]]] = [
        ("mode", lambda: [checks.mode(model, encoded)]),
        ("batch, served", lambda: [checks.batch_served(model, encoded)]),
        ("batch, trained", lambda: [checks.batch_trained(model, encoded)]),
        ("transform and export, in a fresh process", in_a_fresh_process),
        ("server", lambda: [server_equality(module, export_dir, real, encoded)]),
        ("replica", lambda: [replica_check()]),
    ]
    if model.has_batch_statistics:
        name = "batch norm's statistics, and the composition of the batch"
        steps.append((name, lambda: batch_norm_checks(run, data, module)))
    if against is not None:
        steps.append(("metric", lambda: [metric_difference(trained, against)]))
    return steps
