"""`clickparity parity`: builds RUN_DIR/export, runs every check on those bytes, writes the verdict.

The gate (`check_gate`) reads the same numbers, and only for the very bytes that were checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.run_directory import RunDirectory
from pipeline.errors import ConfigError, GateError
from serving.export.manifest import verify_manifest
from serving.loader.loader_choice import Loader, LoaderUse, find_loader

if TYPE_CHECKING:
    from serving.export.signatures import ServingModule
    from serving.parity.checks import Check

__all__ = ["ROWS", "check_gate", "export_digest", "run_parity"]

ROWS = 1024  # real rows that the checks look at: a batch of 1000, and some


def export_digest(export_dir: Path) -> str:
    """One hash for the whole export: of its manifest, which holds the hashes of every file."""
    manifest = export_dir / "assets.extra" / "manifest.json"
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def run_parity(
    run: RunDirectory,
    *,
    against: RunDirectory | None = None,
    cpp_loader: LoaderUse = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Builds the export and checks it; writes parity.json and parity.html.

    Args:
        run: a trained run.
        against: another run on the same data, whose metrics are held against this one's.
        cpp_loader: whether the export check also asks TF Serving's C++ loader, see `find_loader`.
        say: called with a line before each check.

    Returns:
        The contents of parity.json.
    """
    from serving.export.build import build_export, serving_module
    from serving.parity.report import write_report

    say("building the export")
    export_dir = build_export(run)
    module = serving_module(run)
    loader = find_loader(cpp_loader, say)
    found: list[Check] = []
    for name, step in _steps(run, module, export_dir, loader, against):
        say(f"checking parity: {name}")
        found += step()
    report = {
        "run": run.fingerprint,
        "model": run.model_config.name,
        "norm": run.model_config.norm.kind,
        "export_digest": export_digest(export_dir),
        "has_batch_statistics": module.model.has_batch_statistics,
        "checks": [c.to_json() for c in found],
        "passed": all(c.passed is not False for c in found),
    }
    run.write_json("parity.json", report)
    write_report(run.path / "parity.html", [report])
    return report


def _steps(
    run: RunDirectory,
    module: ServingModule,
    export_dir: Path,
    loader: Loader,
    against: RunDirectory | None,
) -> list[tuple[str, Callable[[], list[Check]]]]:
    """What is checked, in order: its name for the progress, and the checks that it makes."""
    from pipeline.transform.parity_sample import real_rows
    from serving.export.build import data_of
    from serving.parity import checks
    from serving.parity.batch_norm import batch_norm_checks
    from serving.parity.export_checks import ask, export_equality, transform_equality
    from serving.parity.hostile_rows import hostile_rows
    from serving.parity.metric import metric_difference
    from serving.parity.replica import replica_equality
    from serving.parity.server_check import server_equality

    data, model = data_of(run), module.model
    real, encoded = real_rows(data, ROWS)

    def in_a_fresh_process() -> list[Check]:
        hostile = hostile_rows(data.schema, real)
        asked = [
            transform_equality(module, real, encoded, hostile),
            export_equality(module, export_dir, real, encoded, loader=loader),
        ]
        return ask(export_dir, asked)

    steps: list[tuple[str, Callable[[], list[Check]]]] = [
        ("mode", lambda: [checks.mode(model, encoded)]),
        ("batch, served", lambda: [checks.batch_served(model, encoded)]),
        ("batch, trained", lambda: [checks.batch_trained(model, encoded)]),
        ("transform and export, in a fresh process", in_a_fresh_process),
        ("server", lambda: [server_equality(module, export_dir, real, encoded)]),
        ("replica", lambda: [replica_equality(run, encoded)]),
    ]
    if model.has_batch_statistics:
        name = "batch norm's statistics, and the composition of the batch"
        steps.append((name, lambda: batch_norm_checks(run, data, module)))
    if against is not None:
        steps.append(("metric", lambda: [metric_difference(run, against)]))
    return steps


def check_gate(run: RunDirectory, accept_batch_gap: float | None) -> dict[str, Any]:
    """Says whether RUN_DIR/export may be published.

    Args:
        run: a run with parity.json.
        accept_batch_gap: the largest batch gap (in logits) that the config accepts of a model with
            batch statistics; None accepts none.

    Returns:
        The parity report.

    Raises:
        GateError: a bar fails, the bytes are not those that were checked, or a batch gap is not accepted.
        ConfigError: parity was not run.
    """
    report: dict[str, Any] = run.read_json("parity.json")
    export_dir = run.path / "export"
    if not export_dir.is_dir():
        raise ConfigError(
            "a run must have its export", f"{export_dir} (missing)", "Run: clickparity parity."
        )
    verify_manifest(export_dir)
    if export_digest(export_dir) != report["export_digest"]:
        raise GateError(
            "the export must be the one that parity was proved for",
            f"{export_digest(export_dir)[:12]}, checked was {report['export_digest'][:12]}",
            f"Run: clickparity parity --run {run.path}.",
        )
    failed = [c for c in report["checks"] if c["passed"] is False]
    if failed:
        raise GateError(
            "every parity bar must hold",
            "; ".join(f"{c['name']}: {float(c['value']):.3g} > {c['bar']:.3g}" for c in failed),
            f"See {run.path / 'parity.html'}.",
        )
    if report["has_batch_statistics"]:
        gap = float(next(c["value"] for c in report["checks"] if c["name"] == "batch, trained"))
        if accept_batch_gap is None or not gap <= accept_batch_gap:
            accepted = (
                "accepts none" if accept_batch_gap is None else f"accepts {accept_batch_gap:g}"
            )
            raise GateError(
                "a model with batch statistics is exported only when the config accepts its batch gap",
                f"a gap of {gap:.3g} in logits (batch of 64 against served), the config {accepted}",
                f"Train with model.norm=layer, or set export.accept_batch_gap={gap * 1.1:.2g} "
                "if that is what you want.",
            )
    return report
