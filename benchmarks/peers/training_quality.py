"""Test AUC of the row-sparse optimizers minus dense Adam's, paired by seed, for every batch size.

Only the tables' optimizer differs: model, initial weights, row order and the dense part's Adam are the
same. Each optimizer first gets the rate that is best for it on the validation rows at batch 512, from
a grid of its own and with a seed that is not compared; at other batch sizes all rates follow by the same
named rule (`ScalingConfig`). Where an epoch has few steps more epochs are trained, and the best on
the validation rows is kept, for all alike.

The cells are those of `experiments`: finished ones are kept and not repeated, and one that was killed goes
on from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.cell import Cell as EngineCell
from experiments.cell import CellFailure, CellResult
from experiments.comparison import compare
from experiments.scheduler import run_cells
from jobs.show.tables import table
from pipeline.errors import ClickparityError
from pipeline.records.data_directory import DataDirectory

__all__ = ["Cell", "compare_quality", "quality_table"]

BASELINE = "adam"
BASE_BATCH, BATCH_SIZES = 512, (256, 512, 4096, 65536)
MIN_STEPS = 60  # fewer make no trained model
TUNING_SEED = 1000
GRIDS = {
    "adam": (1.5e-3, 5e-3, 1.5e-2, 5e-2),
    "lazy_adam": (1.5e-3, 5e-3, 1.5e-2, 5e-2),
    "adagrad": (0.03, 0.1, 0.3, 1.0),
}
# The model of configs/synthetic.yaml
MODEL = {"name": "dcn_v2", "norm": "layer", "embedding_dim": 8, "hidden_units": [128, 64]}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        optimizer: of the tables.
        rate: its learning rate at batch 512.
        batch_size: global.
        seed: of everything.
        rule: of scaling.
    """

    optimizer: str
    rate: float
    batch_size: int
    seed: int
    rule: str = "sqrt"

    def train_config(self, rows: int) -> dict[str, Any]:
        """The `train` section."""
        epochs = max(1, math.ceil(MIN_STEPS / math.ceil(rows / self.batch_size)))
        is_cowclip = self.rule == "cowclip"
        return {
            "global_batch_size": self.batch_size,
            "epochs": epochs,
            "seed": self.seed,
            "learning_rate": 1e-3,
            "embedding_optimizer": self.optimizer,
            "embedding_learning_rate": self.rate,
            "embedding_l2": 1e-5 if is_cowclip else 0.0,
            "cowclip": {} if is_cowclip else None,
            "scaling": {
                "rule": self.rule,
                "base_batch_size": BASE_BATCH,
                "warmup_epochs": 0.1 * epochs,
            },
            "early_stopping": {"metric": "auc", "patience": 3} if epochs > 1 else None,
        }


def results_of(cells: Sequence[Cell], data: DataDirectory, work: Path) -> list[CellResult]:
    """Trains and scores the validation and test rows, as far as that is not done.

    Raises:
        ClickparityError: a training failed.
    """
    wanted = [
        EngineCell.of(
            data,
            {"model": MODEL, "train": cell.train_config(data.num_rows("train"))},
            cell.seed,
            splits=("validation", "test"),
            name=f"{cell.optimizer}-{cell.rule}-{cell.rate:g}-{cell.batch_size}-{cell.seed}",
        )
        for cell in cells
    ]
    found = []
    for outcome in run_cells(wanted, work):
        if isinstance(outcome, CellFailure):
            raise ClickparityError("every training must end", outcome.reason, "See its log.")
        found.append(outcome)
    return found


def compare_quality(data_path: str, work: Path, seeds: int) -> list[dict[str, Any]]:
    """Runs every cell that is not there yet.

    Args:
        data_path: a preprocessed log with rows in all three splits.
        work: where finished cells are kept.
        seeds: trainings of each kind; of a single one the interval holds the test rows' error alone.

    Returns:
        For each batch size and row-sparse optimizer: mean test AUC, mean gain over dense Adam, and the
        gain's 95 % interval over test rows and seeds.
    """
    data = DataDirectory.open(data_path)
    rates = {}
    for optimizer, grid in GRIDS.items():
        tried = results_of(
            [Cell(optimizer, rate, BASE_BATCH, TUNING_SEED) for rate in grid], data, work
        )
        areas = [result.metrics["validation"]["auc"] for result in tried]
        rates[optimizer] = grid[areas.index(max(areas))]
    results = []
    for batch_size in BATCH_SIZES:
        variants = [(optimizer, "sqrt") for optimizer in GRIDS]
        if batch_size == max(BATCH_SIZES):
            variants.append(("lazy_adam", "cowclip"))
        scores, means = {}, {}
        for optimizer, rule in variants:
            cells = [
                Cell(optimizer, rates[optimizer], batch_size, seed, rule) for seed in range(seeds)
            ]
            found = results_of(cells, data, work)
            scores[optimizer, rule] = [result.scores("test") for result in found]
            means[optimizer, rule] = sum(r.metrics["test"]["auc"] for r in found) / seeds
        dense = (BASELINE, "sqrt")
        for optimizer, rule in variants:
            if (optimizer, rule) == dense:
                continue
            gain = compare(scores[optimizer, rule], scores[dense], "auc")
            results.append(
                {
                    "batch_size": batch_size,
                    "optimizer": optimizer,
                    "rule": rule,
                    "rate_at_512": rates[optimizer],
                    "auc": means[optimizer, rule],
                    "dense_auc": means[dense],
                    "dense_rate_at_512": rates[BASELINE],
                    "gain": gain.difference,
                    "interval": [gain.low, gain.high],
                    "detectable": gain.detectable,
                    "seeds": seeds,
                }
            )
    return results


def quality_table(results: list[dict[str, Any]]) -> str:
    """The results for the terminal."""
    header = [
        "tables' optimizer",
        "rate at 512",
        "test AUC",
        "dense Adam's",
        "gain [95 %]",
        "wanted",
    ]
    rows = [
        [
            f"{r['optimizer']} ({r['rule']} rule), batch {r['batch_size']:,}",
            f"{r['rate_at_512']:g}",
            f"{r['auc']:.4f}",
            f"{r['dense_auc']:.4f}",
            f"{r['gain']:+.4f} [{r['interval'][0]:+.4f}, {r['interval'][1]:+.4f}]",
            ">= 0",
        ]
        for r in results
    ]
    seeds = results[0]["seeds"]
    return table(
        header, rows, f"Quality: paired over {seeds} seeds, rates tuned on validation rows"
    )
