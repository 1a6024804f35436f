"""The steps that make a model: train, calibrate, evaluate. Each finds out by itself whether it is done.

A step is done when what it left says that it was made from exactly what it would be made from now.
TensorFlow is imported inside a step, only when it has something to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.config.calibration import CalibrationConfig
from models.config.model import ModelConfig
from models.config.train import TrainConfig, parse_train_config
from models.evaluation import Evaluation, Measured, Metrics, Truth
from models.run_directory import RunDirectory
from models.trained_run import StoredCalibration, TrainedRun
from pipeline.errors import ConfigError
from pipeline.records.data_directory import SPLITS, DataDirectory
from pipeline.reports import finite_or_none

if TYPE_CHECKING:
    from models.training.scoring import Predictions

__all__ = ["calibrate_run", "evaluate_run", "is_calibrated", "kept_evaluation", "train_run"]

_TRUTH = "true_probability"
_REPLICATES = 200  # of the bootstrap
Say = Callable[[str], None]


def _quietly(line: str) -> None:
    """Says nothing."""


def train_run(
    data: DataDirectory,
    out: Path,
    model: ModelConfig,
    train: TrainConfig,
    calibration: CalibrationConfig | None = None,
    *,
    other_sections: Mapping[str, Any] | None = None,
    progress: bool = True,
    say: Say = _quietly,
) -> TrainedRun:
    """Trains (or goes on training) in `out`, then fits the calibration; neither where it is done.

    Args:
        data: with rows in its train split.
        out: the run directory.
        model: section of the config.
        train: section of the config.
        calibration: section of the config; None: its defaults.
        other_sections: what the run directory keeps beside them, plain data by name.
        progress: show a line on stderr.
        say: called with what an operator should know.

    Raises:
        ConfigError: `out` holds another run.
        Interrupted: on SIGTERM; the same call continues from there.
    """
    sections = (model, train, calibration or CalibrationConfig())
    plain = {c.label: c.model_dump(mode="json") for c in sections}
    plain = {**plain, **(other_sections or {})}
    run = RunDirectory.create(out, plain, data.fingerprint, data.path)
    if not run.is_trained:
        from models.training.trainer import train as train_model

        train_model(data, model, train, run, progress=progress)
    trained = TrainedRun(run, data)
    if not is_calibrated(run):
        calibrate_run(trained, say)
    return trained


def is_calibrated(run: RunDirectory) -> bool:
    """Whether the calibration that is there was fitted for the run as its config is now."""
    name = "calibration.json"
    return run.has(name) and run.read_report(name, StoredCalibration).fits(run)


def calibrate_run(trained: TrainedRun, say: Say = _quietly) -> None:
    """Exact correction for loss and down-sampling, then the residual on the validation split."""
    from models.calibration import Calibration, LossCorrection, fit_calibration
    from pipeline.records.time_clusters import time_clusters

    run, data = trained.run, trained.data
    kind = run.calibration_config.kind
    loss = parse_train_config({"loss": run.read_json("training.json")["loss"]}).loss
    correction = LossCorrection.of_loss(loss, data.negative_keep_rate)
    report: dict[str, Any] = {"reason": "no validation rows"}
    if data.num_rows("validation"):
        held_out = _score(trained, "validation")
        calibration, fitted = fit_calibration(
            held_out.logit,
            held_out.label,
            held_out.weight,
            correction=correction,
            residual="identity" if kind == "none" else kind,
            clusters=time_clusters(data, "validation"),
        )
        report = {
            key: finite_or_none(value) if isinstance(value, dict) else value
            for key, value in fitted.to_dict().items()
        }
        if fitted.reason:
            say(f"calibration: {fitted.reason}")
    else:
        calibration = Calibration(correction)
    stored = StoredCalibration(calibration.to_config(), report, run.fingerprint, run.weights_digest)
    run.write_json("calibration.json", stored.to_json())
    trained.__dict__.pop("calibration", None)  # the one fitted before, if it was asked for


def kept_evaluation(
    run: RunDirectory, split: str, segments: Sequence[str] = ()
) -> Evaluation | None:
    """The evaluation in metrics.json, where it is of the run and the options as they are now.

    Raises:
        ConfigError: metrics.json is damaged, or lacks what it should have; the message says what to do.
    """
    if not run.has("metrics.json"):
        return None
    known = run.read_json("metrics.json")
    if "measured" not in known.get(split, {}):  # there is none, or an earlier version made it
        return None
    try:
        found = Evaluation.from_json(known[split])
    except ValueError as error:
        raise ConfigError(
            "a run's file must be as it was written",
            f"{run.path / 'metrics.json'} ({split}.{error})",
            "Delete it, then run: clickparity evaluate --run RUN_DIR.",
        ) from None
    measured = found.measured
    is_asked = set(segments) <= set(measured.segments)  # more of them do no harm
    is_of_now = measured == _measured(run, measured.segments)
    return found if is_asked and is_of_now else None


def _measured(run: RunDirectory, segments: Sequence[str]) -> Measured:
    batch_size = run.train_config.evaluation_batch_size
    return Measured(
        run.fingerprint,
        batch_size,
        _REPLICATES,
        tuple(segments),
        run.weights_digest,
        run.calibration_digest,
    )


def _score(trained: TrainedRun, split: str) -> Predictions:
    from models.training.scoring import score_split

    batch_size = trained.run.train_config.evaluation_batch_size
    return score_split(trained.model, trained.data, split, batch_size)


def evaluate_run(
    trained: TrainedRun, split: str = "test", *, force: bool = False, segments: Sequence[str] = ()
) -> Evaluation:
    """Metrics of a split, calibrated and raw; kept in metrics.json under the split's name.

    Where the rows carry their true probability, the distance to the best possible is reported too.

    Args:
        trained: the run.
        split: train, validation or test.
        force: even if it is done.
        segments: columns to break the calibrated metrics down by (`pipeline.records.segments`).

    Raises:
        ConfigError: no such split, no rows in it, or no such column.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split must be one of {', '.join(SPLITS)}", repr(split))
    run = trained.run
    kept = None if force else kept_evaluation(run, split, segments)
    if kept is not None:
        return kept
    from models.metrics import evaluate
    from pipeline.records.segments import check_segments, segment_columns
    from pipeline.records.time_clusters import time_clusters

    data = trained.data
    check_segments(data, segments)
    scored = _score(trained, split)
    calibrated = np.asarray(trained.calibration.logits(scored.logit))
    columns = segment_columns(data, split, segments) if segments else None
    found = evaluate(
        scored.label,
        calibrated,
        scored.weight,
        columns,
        num_replicates=_REPLICATES,
        clusters=time_clusters(data, split),
    )
    truth = None
    if _TRUTH in data.spec.carry:
        true = scored.carry[:, data.spec.carry.index(_TRUTH)].astype(np.float64)
        truth = _against_truth(scored.label, calibrated, true, scored.weight)
    evaluation = Evaluation.of(
        found["overall"],
        raw=Metrics.of(evaluate(scored.label, scored.logit, scored.weight)["overall"]),
        measured=_measured(run, segments),
        truth=truth,
        segments={
            name: {value: Metrics.of(metrics) for value, metrics in values.items()}
            for name, values in found["segments"].items()
        },
        calibration_says=_calibration_says(trained, split, found["overall"]),
    )
    known = run.read_json("metrics.json") if run.has("metrics.json") else {}
    run.write_json("metrics.json", {**known, split: evaluation.to_json()})
    return evaluation


def _calibration_says(trained: TrainedRun, split: str, found: Mapping[str, Any]) -> str:
    """What the calibration ratio of a split says, drift told from a model that was never calibrated."""
    from models.metrics import Interval, calibration_verdict

    def interval(metrics: Mapping[str, Any]) -> Interval:
        names = ("calibration_ratio", "calibration_ratio_low", "calibration_ratio_high")
        estimate, low, high = (
            math.nan if (value := metrics.get(name)) is None else float(value) for name in names
        )
        return Interval(estimate, low, high, math.nan)

    run, data = trained.run, trained.data
    report = run.read_report("calibration.json", StoredCalibration).report
    rates = None
    if data.num_rows("validation"):
        rates = data.label_rate("validation"), data.label_rate(split)
    verdict = calibration_verdict(
        interval(found), fitted=interval(report.get("calibrated", {})), base_rates=rates
    )
    return verdict.value


def _against_truth(
    label: np.ndarray, logit: np.ndarray, truth: np.ndarray, weight: np.ndarray
) -> Truth:
    """Bayes AUC and log loss, and the calibration against the truth."""
    from models.metrics import auc, log_loss

    true_logit = np.log(truth) - np.log1p(-truth)
    probability = 1 / (1 + np.exp(-logit.astype(np.float64)))
    mean_truth = float(np.average(truth, weights=weight))
    found = {
        "bayes_auc": auc(label, true_logit, weight),
        "bayes_log_loss": log_loss(label, logits=true_logit, weight=weight),
        "mean_true_probability": mean_truth,
        "prediction_over_truth": float(np.average(probability, weights=weight)) / mean_truth,
    }
    return Truth(**finite_or_none(found))
