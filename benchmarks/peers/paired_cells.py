"""Trainings that differ in one thing, with the same seeds and on the same test rows.

A cell is one training. Its run directory holds the weights and the scored test split, so a benchmark
that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from models.config.model import parse_model_config
from models.config.train import parse_train_config
from models.keras2 import keras
from models.metrics import auc, auc_difference_interval
from models.run_directory import RunDirectory
from models.training.scoring import Predictions, score_split
from models.training.trainer import train
from pipeline.records.data_directory import DataDirectory

__all__ = ["Scored", "gain", "summary", "trained_and_scored"]


@dataclasses.dataclass(frozen=True)
class Scored:
    """The test split under one training; arrays [rows]."""

    label: np.ndarray
    logit: np.ndarray
    truth: np.ndarray  # true probabilities

    @property
    def auc(self) -> float:
        """Of the model."""
        return float(auc(self.label, self.logit))

    @property
    def bayes_auc(self) -> float:
        """Of the true probabilities: the best possible on these rows."""
        return float(auc(self.label, self.truth))


def trained_and_scored(
    data: DataDirectory, model: dict[str, Any], train_options: dict[str, Any], path: Path
) -> Scored:
    """Trains in `path` and scores the test split, as far as that is not done."""
    sections = {"model": model, "train": train_options}
    run = RunDirectory.create(path, sections, data.fingerprint, data.path)
    if not run.has("scored.npz"):
        train(data, parse_model_config(model), parse_train_config(train_options), run)
        found: Predictions = score_split(run.load_model(dropout=0.0), data, "test")
        truth = found.carry[:, data.spec.carry.index("true_probability")]
        beside = path / ".scored.partial.npz"
        np.savez(beside, label=found.label, logit=found.logit, truth=truth)
        beside.replace(path / "scored.npz")
        keras.backend.clear_session()
    with np.load(path / "scored.npz") as arrays:
        return Scored(arrays["label"], arrays["logit"], arrays["truth"])


def gain(ours: Sequence[Scored], without: Sequence[Scored]) -> dict[str, float]:
    """Mean difference of test AUC over paired seeds, with its 95 % interval.

    The interval holds both errors: that of the test rows (DeLong, paired, which all seeds share) and
    that of the trainings (Student's t over the seeds' differences).

    Raises:
        ValueError: the two were not scored on the same rows.
    """
    differences, errors = [], []
    for one, other in zip(ours, without, strict=True):
        if not (np.array_equal(one.label, other.label) and np.array_equal(one.truth, other.truth)):
            raise ValueError("paired trainings must be scored on the same test rows; they were not")
        interval = auc_difference_interval(one.label, one.logit, other.logit)
        differences.append(interval.estimate)
        errors.append(interval.standard_error)
    count = len(differences)
    half = 1.96 * float(np.mean(errors))
    if count > 1:
        of_seeds = student.ppf(0.975, count - 1) * np.std(differences, ddof=1) / math.sqrt(count)
        half = math.hypot(half, float(of_seeds))
    mean = float(np.mean(differences))
    return {"gain": mean, "low": mean - half, "high": mean + half}


def summary(cells: Sequence[Scored]) -> dict[str, float]:
    """AUC over the seeds, and how far the best possible is from it."""
    areas = [cell.auc for cell in cells]
    bayes = cells[0].bayes_auc
    return {
        "auc": float(np.mean(areas)),
        "deviation": float(np.std(areas, ddof=1)) if len(areas) > 1 else math.nan,
        "bayes_auc": bayes,
        "distance_to_bayes": bayes - float(np.mean(areas)),
    }
