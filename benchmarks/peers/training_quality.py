"""Test AUC of the row-sparse optimizers minus dense Adam's, paired by seed, for every batch size.

Only the tables' optimizer differs: model, initial weights, row order and the dense part's Adam are the
same. Each optimizer first gets the rate that is best for it on the validation rows at batch 512, from
a grid of its own and with a seed that is not compared; at other batch sizes all rates follow by the same
named rule (`ScalingConfig`). Where an epoch has few steps more epochs are trained, and the best on
the validation rows is kept, for all alike.

A cell is one training. Finished cells are kept as files and not repeated, and a cell that was killed goes
on from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from jobs.show.tables import table
from models.config.model import parse_model_config
from models.config.train import parse_train_config
from models.metrics import auc
from models.run_directory import RunDirectory, write_atomically
from models.training.scoring import score_split
from models.training.trainer import train
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


def run_cell(cell: Cell, data: DataDirectory, work: Path) -> dict[str, float]:
    """Validation and test AUC of a cell, trained now or kept from before."""
    config = {"model": MODEL, "train": cell.train_config(data.num_rows("train"))}
    path = work / f"{cell.optimizer}-{cell.rule}-{cell.rate:g}-{cell.batch_size}-{cell.seed}"
    run = RunDirectory.create(path, config, data.fingerprint, data.path)
    kept = work / f"{run.fingerprint}.json"
    if not kept.exists():
        train(
            data,
            parse_model_config(config["model"]),
            parse_train_config(config["train"]),
            run,
            progress=False,
        )
        model = run.load_model()
        found = {}
        for split in ("validation", "test"):
            scored = score_split(model, data, split)
            found[split] = auc(scored.label, scored.logit, scored.weight)
        write_atomically(kept, json.dumps({**dataclasses.asdict(cell), **found}).encode())
        print(f"{path.name}: test AUC {found['test']:.4f}", file=sys.stderr, flush=True)
    shutil.rmtree(path)
    answer: dict[str, float] = json.loads(kept.read_text())
    return answer


def compare_quality(data_path: str, work: Path, seeds: int) -> list[dict[str, Any]]:
    """Runs every cell that is not there yet.

    Args:
        data_path: a preprocessed log with rows in all three splits.
        work: where finished cells are kept.
        seeds: trainings of each kind; at least 2 for an interval.

    Returns:
        For each batch size and row-sparse optimizer: mean test AUC, mean gain over dense Adam, and the
        gain's 95 % interval (Student's t over seeds).
    """
    work.mkdir(parents=True, exist_ok=True)
    data = DataDirectory.open(data_path)
    rates = {}
    for optimizer, grid in GRIDS.items():
        tried = {
            rate: run_cell(Cell(optimizer, rate, BASE_BATCH, TUNING_SEED), data, work)["validation"]
            for rate in grid
        }
        rates[optimizer] = max(tried, key=lambda rate: tried[rate])
    results = []
    for batch_size in BATCH_SIZES:
        variants = [(optimizer, "sqrt") for optimizer in GRIDS]
        if batch_size == max(BATCH_SIZES):
            variants.append(("lazy_adam", "cowclip"))
        areas = {}
        for optimizer, rule in variants:
            cells = [
                Cell(optimizer, rates[optimizer], batch_size, seed, rule) for seed in range(seeds)
            ]
            areas[optimizer, rule] = np.array([run_cell(c, data, work)["test"] for c in cells])
        baseline = areas.pop((BASELINE, "sqrt"))
        for (optimizer, rule), found in areas.items():
            gains = found - baseline
            low, high = _interval(gains)
            results.append(
                {
                    "batch_size": batch_size,
                    "optimizer": optimizer,
                    "rule": rule,
                    "rate_at_512": rates[optimizer],
                    "auc": float(found.mean()),
                    "dense_auc": float(baseline.mean()),
                    "dense_rate_at_512": rates[BASELINE],
                    "gain": float(gains.mean()),
                    "interval": [low, high],
                    "seeds": seeds,
                }
            )
    return results


def _interval(gains: np.ndarray) -> tuple[float, float]:
    """95 %, of the mean of few numbers."""
    count = len(gains)
    if count < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf(0.975, count - 1) * gains.std(ddof=1) / math.sqrt(count))
    return float(gains.mean()) - half, float(gains.mean()) + half


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
