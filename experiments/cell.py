"""The cell: one training (or any other model of the same rows) under one seed, with its identity.

    FOLDER/
      <identity>/           a finished cell
        cell.json           what it is
        result.json         metrics, cost, what the training came to
        logits-<split>.npz  calibrated and raw logits of every row
        _SUCCESS            the identity; written last
      rows/<split id>.npz   labels, weights, clusters, true probabilities: once for all cells of a data set
      failed/<identity>.json  why a cell failed
      work/<identity>/      of a cell that is under way: its run directory and log

Needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from experiments.scores import Rows, Scores
from models.config.calibration import CalibrationConfig
from models.config.model import ModelConfig, parse_model_config
from models.config.train import TrainConfig, parse_train_config
from models.run_directory import weights_identity
from pipeline.errors import ConfigError
from pipeline.records.data_directory import DataDirectory
from pipeline.step_directory import fingerprint_of, is_finished
from pipeline.strict_config import Changes, config_error, options_that_change

__all__ = [
    "TRAIN_AND_SCORE",
    "Cell",
    "CellFailure",
    "CellResult",
    "Failure",
    "over_seeds",
    "read_failure",
    "read_result",
    "rows_path",
]

TRAIN_AND_SCORE = "experiments.training:train_and_score"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One thing to train and score. Make one with `Cell.of`.

    Attributes:
        data_path: the data directory.
        data_fingerprint: of its content.
        sections: "model", "train", "calibration" as plain data, completed by their defaults; whatever
            another runner reads.
        seed: of initial weights, row order and dropout.
        splits: that are scored.
        share: of every epoch's training rows, in (0, 1]: what a cheap first look costs.
        runner: "module:function" or "FILE.py:function"; see `experiments.cell_process.Runner`.
        name: for people; no part of the identity.
    """

    data_path: str
    data_fingerprint: str
    sections: Mapping[str, Any]
    seed: int = 0
    splits: tuple[str, ...] = ("test",)
    share: float = 1.0
    runner: str = TRAIN_AND_SCORE
    name: str = ""

    @classmethod
    def of(
        cls,
        data: DataDirectory,
        sections: Mapping[str, Any],
        seed: int = 0,
        *,
        splits: Sequence[str] = ("test",),
        share: float = 1.0,
        runner: str = TRAIN_AND_SCORE,
        name: str = "",
    ) -> Cell:
        """A cell whose config is valid and whose splits have rows.

        Raises:
            ConfigError: an impossible config, split or share: before anything is started.
        """
        if not 0.0 < share <= 1.0:
            raise ConfigError("share must lie in (0, 1]", share, "1 trains on every row.")
        if not splits:
            raise ConfigError("a cell scores at least one split", "none", "Try test.")
        for split in splits:
            data.files(split)
        plain = json.loads(json.dumps(dict(sections), default=str))
        if runner == TRAIN_AND_SCORE:
            plain = _complete(plain, seed)
        return cls(
            str(data.path), data.fingerprint, plain, seed, tuple(splits), share, runner, name
        )

    @property
    def identity(self) -> str:
        """16 hex digits of exactly what the result depends on."""
        sections: Any = self.sections
        if self.runner == TRAIN_AND_SCORE:
            model, train, calibration = _parsed(self.sections, self.seed)
            weights = weights_identity(model, train, self.data_fingerprint)
            sections = (weights, options_that_change(calibration, Changes.CALIBRATION))
        return fingerprint_of(
            "cell 1",
            self.data_fingerprint,
            sections,
            self.seed,
            self.splits,
            self.share,
            self.runner.rpartition("/")[2],
        )

    @property
    def title(self) -> str:
        """Its name, or its identity where it has none."""
        return self.name or self.identity

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**dataclasses.asdict(self), "splits": list(self.splits)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Cell:
        """What `to_json` gave."""
        return cls(**{**raw, "splits": tuple(raw["splits"])})


def _complete(sections: dict[str, Any], seed: int) -> dict[str, Any]:
    """Validated, with every default written out: the same config has the same identity however written."""
    unknown = sorted(sections.keys() - {"model", "train", "calibration"})
    if unknown:
        raise ConfigError(
            "a cell's config has the sections model, train and calibration", ", ".join(unknown)
        )
    return {config.label: config.model_dump(mode="json") for config in _parsed(sections, seed)}


def _parsed(
    sections: Mapping[str, Any], seed: int
) -> tuple[ModelConfig, TrainConfig, CalibrationConfig]:
    try:
        calibration = CalibrationConfig.model_validate(sections.get("calibration") or {})
    except ValidationError as error:
        raise config_error(error, CalibrationConfig.label) from None
    return (
        parse_model_config(sections.get("model") or {}),
        parse_train_config({**(sections.get("train") or {}), "seed": seed}),
        calibration,
    )


def over_seeds(cell: Cell, seeds: Sequence[int]) -> list[Cell]:
    """The same cell under each seed."""
    train = cell.sections.get("train")

    def of(seed: int) -> Cell:
        sections = dict(cell.sections)
        if cell.runner == TRAIN_AND_SCORE and train is not None:
            sections["train"] = {**train, "seed": seed}
        name = f"{cell.name}, seed {seed}" if cell.name else ""
        return dataclasses.replace(cell, sections=sections, seed=seed, name=name)

    return [of(seed) for seed in seeds]


@dataclasses.dataclass(frozen=True)
class CellResult:
    """What a finished cell left.

    Attributes:
        cell: what it is.
        path: its directory.
        metrics: by split: count, auc, log_loss, ..., calibrated; "raw", and "truth" where the rows carry it.
        training: what the training came to: epochs, global_step, best_epoch, history, ...
        cost: seconds, cpu_seconds, peak_mb, examples (trained on, over all epochs).
    """

    cell: Cell
    path: Path
    metrics: dict[str, Any]
    training: dict[str, Any]
    cost: dict[str, float]

    def scores(self, split: str | None = None) -> Scores:
        """The scored rows of a split; of the cell's only one when it is left out.

        Raises:
            ConfigError: the cell did not score it.
        """
        split = self.cell.splits[0] if split is None else split
        if split not in self.cell.splits:
            raise ConfigError(
                "a split's scores are there where the cell scored it",
                f"{split} of {self.cell.title} ({', '.join(self.cell.splits)})",
                f"Give the cell splits=(..., {split!r}).",
            )
        rows = Rows.load(rows_path(self.path.parent, self.cell.data_fingerprint, split))
        with np.load(self.path / f"logits-{split}.npz") as arrays:
            return Scores(rows, arrays["calibrated"], arrays["raw"])


class Failure(enum.StrEnum):
    """Why a cell has no result."""

    DIVERGED = "diverged"  # the loss or the logits are no numbers: it would again
    OUT_OF_MEMORY = "out of memory"
    BAD_DATA = "bad data"
    CRASHED = "crashed"


@dataclasses.dataclass(frozen=True)
class CellFailure:
    """A cell that failed, alone.

    Attributes:
        cell: what it is.
        kind: see `Failure`.
        reason: one line.
        log: the end of what the process wrote.
    """

    cell: Cell
    kind: Failure
    reason: str
    log: str = ""

    @property
    def is_lasting(self) -> bool:
        """Whether the same cell would fail again: it is not tried anew."""
        return self.kind is Failure.DIVERGED

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "cell": self.cell.to_json(),
            "kind": self.kind.value,
            "reason": self.reason,
            "log": self.log,
        }


def rows_path(folder: Path, data_fingerprint: str, split: str) -> Path:
    """Where the rows of a split are kept for all cells of a folder."""
    return folder / "rows" / f"{data_fingerprint}-{split}.npz"


def read_result(folder: Path, cell: Cell) -> CellResult | None:
    """The result of a finished cell; None when there is none yet."""
    path = folder / cell.identity
    if not is_finished(path, cell.identity):
        return None
    raw = json.loads((path / "result.json").read_text())
    return CellResult(cell, path, raw["metrics"], raw["training"], raw["cost"])


def read_failure(folder: Path, cell: Cell) -> CellFailure | None:
    """Why the cell failed when it was last tried; None when it did not."""
    path = folder / "failed" / f"{cell.identity}.json"
    try:
        raw = json.loads(path.read_text())
    except OSError:
        return None
    return CellFailure(cell, Failure(raw["kind"]), raw["reason"], raw["log"])
