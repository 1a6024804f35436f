"""The steps of a run: train, evaluate, parity, publish. Each finds out by itself whether it is done.

TensorFlow is imported inside a step, only when it has something to do.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jobs.config import CalibrationConfig, ExportConfig, GateConfig, RunConfig
from jobs.show.progress import say
from models.run_directory import RunDirectory
from pipeline.errors import ConfigError, GateError
from pipeline.records.data_directory import SPLITS, DataDirectory

__all__ = ["evaluate_run", "export_run", "parity_run", "quality_gate", "section", "train_run"]

_TRUTH = "true_probability"
_REPLICATES = 200  # of the bootstrap


def section(run: RunDirectory, kind: type[Any]) -> Any:
    """A section of the config that a run was made with (or its defaults)."""
    return kind.model_validate(run.config.get(kind.label) or {})


def train_run(
    data: DataDirectory, config: RunConfig, out: Path, *, progress: bool = True
) -> RunDirectory:
    """Trains (or goes on training) in `out`, then fits the calibration.

    Raises:
        ConfigError: `out` holds another run.
        Interrupted: on SIGTERM; the same call goes on from there.
    """
    run = RunDirectory.create(out, config.run_sections(), data.fingerprint, data.path)
    if run.is_trained and run.has("calibration.json"):
        return run
    from models.training.trainer import train

    result = train(data, config.model, config.train, run, progress=progress)
    _fit_calibration(run, data, result.loss)
    return run


def _fit_calibration(run: RunDirectory, data: DataDirectory, loss: dict[str, Any]) -> None:
    """Exact correction for loss and down-sampling, then the residual on the validation split."""
    from models.calibration import Calibration, LossCorrection, fit_calibration
    from models.config.train import parse_train_config
    from models.training.scoring import score_split

    kind = section(run, CalibrationConfig).kind
    resolved = parse_train_config({"loss": loss}).loss
    correction = LossCorrection.of_loss(resolved, data.negative_keep_rate)
    if data.num_rows("validation"):
        held_out = score_split(run.load_model(dropout=0.0), data, "validation")
        calibration, fitted = fit_calibration(
            held_out.logit,
            held_out.label,
            held_out.weight,
            correction=correction,
            residual="identity" if kind == "none" else kind,
        )
        report = fitted.to_dict()
        if fitted.reason:
            say(f"calibration: {fitted.reason}")
    else:
        calibration, report = Calibration(correction), {"reason": "no validation rows"}
    content = {"calibration": calibration.to_config(), "report": _plain(report)}
    run.write_json("calibration.json", content)


def evaluate_run(
    run: RunDirectory, split: str = "test", *, force: bool = False, segments: Sequence[str] = ()
) -> dict[str, Any]:
    """Metrics of a split, calibrated and raw; kept in metrics.json under the split's name.

    Where the rows carry their true probability, the distance to the best possible is reported too.

    Args:
        run: trained.
        split: train, validation or test.
        force: even if it is done.
        segments: columns to break the calibrated metrics down by (`pipeline.records.segments`).

    Raises:
        ConfigError: no such split, no rows in it, or no such column.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split must be one of {', '.join(SPLITS)}", repr(split))
    known: dict[str, Any] = run.read_json("metrics.json") if run.has("metrics.json") else {}
    if split in known and not force:
        return dict(known[split])
    from models.metrics import evaluate
    from models.training.scoring import score_split
    from pipeline.records.segments import check_segments, segment_columns
    from serving.export.build import data_of, load_calibration

    data = data_of(run)
    check_segments(data, segments)
    scored = score_split(run.load_model(dropout=0.0), data, split)
    calibrated = np.asarray(load_calibration(run).logits(scored.logit))
    columns = segment_columns(data, split, segments) if segments else None
    report = evaluate(scored.label, calibrated, scored.weight, columns, num_replicates=_REPLICATES)
    found: dict[str, Any] = {
        **report["overall"],
        "raw": evaluate(scored.label, scored.logit, scored.weight)["overall"],
    }
    if columns:
        found["segments"] = report["segments"]
    if _TRUTH in data.spec.carry:
        truth = scored.carry[:, data.spec.carry.index(_TRUTH)].astype(np.float64)
        found["truth"] = _against_truth(scored.label, calibrated, truth, scored.weight)
    known[split] = _plain(found)
    run.write_json("metrics.json", known)
    return dict(known[split])


def _against_truth(
    label: np.ndarray, logit: np.ndarray, truth: np.ndarray, weight: np.ndarray
) -> dict[str, float]:
    """How far from the best possible: Bayes AUC and log loss, calibration against the truth."""
    from models.metrics import auc, log_loss

    true_logit = np.log(truth) - np.log1p(-truth)
    probability = 1 / (1 + np.exp(-logit.astype(np.float64)))
    return {
        "bayes_auc": auc(label, true_logit, weight),
        "bayes_log_loss": log_loss(label, logits=true_logit, weight=weight),
        "mean_true_probability": float(np.average(truth, weights=weight)),
        "prediction_over_truth": float(
            np.average(probability, weights=weight) / np.average(truth, weights=weight)
        ),
    }


def _plain(value: Any) -> Any:
    """JSON values: NaN becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def quality_gate(metrics: dict[str, Any], gate: GateConfig) -> None:
    """Raises GateError when a quality bar of the config fails on the test split."""
    auc = metrics.get("auc")
    if gate.min_auc is not None and (auc is None or auc < gate.min_auc):
        raise GateError(
            "the AUC on the test split must reach gate.min_auc",
            f"{auc} < {gate.min_auc}",
            "Look at the data and the training history, or lower the bar.",
        )
    ratio = metrics.get("calibration_ratio")
    bar = gate.max_calibration_error
    if bar is not None and (ratio is None or abs(ratio - 1) > bar):
        raise GateError(
            "mean prediction over mean label on the test split must be near 1",
            f"{ratio} (gate.max_calibration_error {bar})",
            "Look at drift between the splits, or widen the bar.",
        )


def parity_run(
    run: RunDirectory,
    *,
    against: RunDirectory | None = None,
    cpp_loader: Literal["auto", "on", "off"] = "auto",
    force: bool = False,
) -> dict[str, Any]:
    """Builds the export and proves it, unless that is done for the export as it stands.

    Args:
        run: trained.
        against: another run, for the check `metric`.
        cpp_loader: see `serving.loader.loader_choice`.
        force: even if it is done.
    """
    if not force and run.has("parity.json"):
        from serving.export.manifest import verify_manifest
        from serving.parity.suite import export_digest

        report: dict[str, Any] = run.read_json("parity.json")
        with contextlib.suppress(ConfigError, GateError):  # missing or damaged: built anew
            verify_manifest(run.path / "export")
            if export_digest(run.path / "export") == report["export_digest"]:
                return report
    from serving.parity.suite import run_parity

    return run_parity(run, against=against, cpp_loader=cpp_loader, say=say)


def export_run(run: RunDirectory, models_dir: Path, name: str) -> dict[str, Any]:
    """Gates on parity and quality, then publishes the very bytes that were checked.

    Raises:
        GateError: a gate says no.
    """
    from serving.parity.suite import check_gate
    from serving.repository.repository import ModelRepository
    from serving.repository.version_check import loads_and_answers

    check_gate(run, section(run, ExportConfig).accept_batch_gap)
    quality_gate(evaluate_run(run), section(run, GateConfig))
    answer = ModelRepository(models_dir, name).publish(run.path / "export", check=loads_and_answers)
    return {
        "name": name,
        "version": answer.number,
        "path": str(answer.path),
        "fingerprint": answer.fingerprint,
        "outcome": answer.outcome.value,
        "message": answer.message,
    }
