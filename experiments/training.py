"""What most cells do: train a network, calibrate it, score the splits."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import tensorflow as tf

from experiments.cell import Cell
from experiments.outcome import CellOutcome, SplitLogits
from models.run_directory import RunDirectory
from models.run_steps import calibrate_run
from models.trained_run import StoredCalibration, TrainedRun
from models.training.scoring import score_split
from models.training.trainer import BatchSource, TrainResult, train_on
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
    trained = TrainedRun(run, data)
    calibrate_run(trained)
    calibration, batch_size = trained.calibration, run.train_config.evaluation_batch_size
    scored: dict[str, SplitLogits] = {}
    for split in cell.splits:
        raw = score_split(trained.model, data, split, batch_size).logit
        corrected = calibration.correction.logits(raw).numpy()
        calibrated = calibration.logits(tf.constant(raw)).numpy()
        scored[split] = SplitLogits(calibrated=calibrated, raw=raw, corrected=corrected)
    examples = result.global_step * run.train_config.global_batch_size
    report = run.read_report("calibration.json", StoredCalibration).report
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
