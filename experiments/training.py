"""What most cells do: train a network, calibrate it, score the splits."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import tensorflow as tf

from experiments.cell import Cell
from experiments.outcome import CellOutcome, SplitLogits
from models.calibration import Calibration, LossCorrection, fit_calibration
from models.config.train import parse_train_config
from models.run_directory import RunDirectory
from models.training.scoring import score_split
from models.training.trainer import BatchSource, TrainResult, train_on
from models.zoo.base import CTRModel
from pipeline.records.data_directory import DataDirectory
from pipeline.records.dataset import naming_damaged_shards

__all__ = ["train_and_score"]


def train_and_score(cell: Cell, data: DataDirectory, work: Path) -> CellOutcome:
    """The runner `experiments.cell.TRAIN_AND_SCORE`: goes on from the checkpoints in `work`.

    Raises:
        DivergedError: the loss is no number any more.
        Interrupted: on SIGTERM, after saving.
    """
    run = RunDirectory.create(work / "run", cell.sections, data.fingerprint, data.path)
    result = _trained(cell, data, run)
    model = run.load_model(dropout=0.0)
    batch_size = run.train_config.evaluation_batch_size
    calibration, report = _calibrated(cell, data, model, result.loss, batch_size)
    scored: dict[str, SplitLogits] = {}
    for split in cell.splits:
        raw = score_split(model, data, split, batch_size).logit
        corrected = calibration.correction.logits(raw).numpy()
        calibrated = calibration.logits(tf.constant(raw)).numpy()
        scored[split] = SplitLogits(calibrated=calibrated, raw=raw, corrected=corrected)
    examples = result.global_step * run.train_config.global_batch_size
    training = {**dataclasses.asdict(result), "calibration": report}
    return CellOutcome(scored, training, min(examples, result.epochs * data.num_rows("train")))


def _trained(cell: Cell, data: DataDirectory, run: RunDirectory) -> TrainResult:
    """The training, over the cell's share of every epoch."""
    if run.is_trained:
        return TrainResult(**run.read_json("training.json"))
    source = BatchSource.of(data, run.train_config)
    if cell.share < 1.0:
        steps = max(1, math.ceil(cell.share * source.steps_per_epoch))
        whole = source.training

        def first_part(epoch: int, first_step: int) -> tf.data.Dataset:
            return whole(epoch, first_step).take(steps - first_step)

        source = dataclasses.replace(source, steps_per_epoch=steps, training=first_part)
    with naming_damaged_shards(data):
        return train_on(source, run.model_config, run.train_config, run)


# One place with jobs.steps once that step lives below both: train, then calibrate.
def _calibrated(
    cell: Cell, data: DataDirectory, model: CTRModel, loss: dict[str, Any], batch_size: int
) -> tuple[Calibration, dict[str, Any]]:
    """The exact correction of loss and sampling, then the residual on the validation rows."""
    resolved = parse_train_config({"loss": loss}).loss
    correction = LossCorrection.of_loss(resolved, data.negative_keep_rate)
    if not data.num_rows("validation"):
        return Calibration(correction), {"kind": "identity", "reason": "no validation rows"}
    kind = cell.sections["calibration"]["kind"]
    held_out = score_split(model, data, "validation", batch_size)
    calibration, report = fit_calibration(
        held_out.logit,
        held_out.label,
        held_out.weight,
        correction=correction,
        residual="identity" if kind == "none" else kind,
    )
    return calibration, {"kind": report.kind, "reason": report.reason, "clicks": report.clicks}
