"""What is measured: the logs, the cells over them, and the one recipe that trains every network."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from experiments.cell import TRAIN_AND_SCORE
from experiments.cell import Cell as EngineCell
from pipeline.records.data_directory import DataDirectory

__all__ = [
    "BASELINES",
    "LIGHTGBM",
    "LOGISTIC_REGRESSION",
    "NETWORKS",
    "NORMS",
    "Cell",
    "Log",
    "calibration_cells",
    "curve_cells",
    "engine_cell",
    "norm_cells",
    "recipe",
]

CTR = 0.02
LOGISTIC_REGRESSION, LIGHTGBM = "logistic_regression", "lightgbm"
BASELINES = (LOGISTIC_REGRESSION, LIGHTGBM)
# dstn and ad_image are about ad sequences and pictures, which this log does not have.
NETWORKS: dict[str, dict[str, Any]] = {
    "wide_deep": {},
    "deepfm": {},
    "dcn": {},
    "dcn_v2": {},
    "autoint": {"attention": {"num_layers": 1, "num_heads": 2, "head_dim": 8}},
    "dlrm": {"dlrm": {"bottom_units": [64, 32]}},
    "masknet": {},
    "finalmlp": {"final_mlp": {"second_units": [64], "selection_units": [32]}},
}
NORMS = ("none", "layer", "variance_only", "batch")
MODEL = {"embedding_dim": 8, "hidden_units": [64, 32]}
TINY = 4_000  # rows
STEPS_PER_EPOCH = 220  # about; a batch size is a power of 2
ROW_PENALTY = 0.25  # of one row of the log that touches an embedding row; see `recipe`
TRAIN: dict[str, Any] = {
    "epochs": 5,
    "learning_rate": 0.01,
    "embedding_learning_rate": 0.8,
    "embedding_initial_accumulator": 0.1,
    "schedule": {"kind": "cosine", "warmup_steps": 200},
    "early_stopping": {"metric": "auc", "patience": 5},
}
LOSSES: dict[str, Any] = {
    "bce": "bce",
    "pos_weight 10": {"kind": "pos_weight", "pos_weight": 10.0},
    "pos_weight balanced": {"kind": "pos_weight", "pos_weight": "balanced"},
    "focal": "focal",
}


@dataclasses.dataclass(frozen=True)
class Log:
    """One synthetic log and its random split.

    Attributes:
        train, validation, test: rows expected in each split.
        drift: see `SyntheticLog`.
        negative_keep_rate: of the training rows.
        seed: draws the rows.
    """

    train: int
    validation: int
    test: int
    drift: float = 1.0
    negative_keep_rate: float = 1.0
    seed: int = 11

    @property
    def num_rows(self) -> int:
        """Rows of the whole log."""
        return self.train + self.validation + self.test

    @property
    def name(self) -> str:
        """The raw log and the encoded one are kept under this name."""
        sizes = f"{self.train}-{self.validation}-{self.test}"
        return f"{sizes}-drift{self.drift:g}-keep{self.negative_keep_rate:g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One figure of the tables: a model trained once.

    Attributes:
        kind: "curve", whose cells the table of normalizations holds too, or "calibration".
        rows: of the table's row: those of the log without its test rows.
        log: what it learns from.
        model: a network or a baseline.
        seed: of initial weights and row order, or of LightGBM's draws.
        loss: a name in LOSSES.
        norm: of a network's hidden layers.
    """

    kind: str
    rows: int
    log: Log
    model: str
    seed: int = 0
    loss: str = "bce"
    norm: str = "layer"

    @property
    def name(self) -> str:
        """Unique."""
        norm = [] if self.model in BASELINES else [self.norm]
        parts = [self.kind, f"{self.rows}", self.model, *norm, f"seed{self.seed}"]
        if self.kind == "calibration":
            parts += [self.loss.replace(" ", "_"), f"keep{self.log.negative_keep_rate:g}"]
        return "-".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, beside its result."""
        return dataclasses.asdict(self)


def engine_cell(cell: Cell, data: DataDirectory) -> EngineCell:
    """The cell as the engine runs it, on the prepared log."""
    sections, runner = recipe(cell), TRAIN_AND_SCORE
    if cell.model in BASELINES:
        sections, runner = {"baseline": cell.model}, "benchmarks.quality.baselines:fit_and_score"
    return EngineCell.of(data, sections, cell.seed, runner=runner, name=cell.name)


def recipe(cell: Cell) -> dict[str, Any]:
    """The sections `model` and `train` of a network's config: the same recipe for all of them.

    Empty for a baseline, which chooses its options itself.

    The batch grows with the log, so that an epoch has about as many steps at every size and the
    learning rates hold at all of them. Adagrad starts from an accumulator that the mean gradient of
    an embedding row hardly adds to: its rate over the batch size is what moves a row per click, and
    rare ids stay near zero. L2 on touched rows is given per row of the log, as a prior would be.
    The warm-up is for bad starts: without it, at twice the rate, two seeds of autoint lay .04 apart.
    """
    if cell.model in BASELINES:
        return {}
    kept = cell.log.train * (CTR + cell.log.negative_keep_rate * (1 - CTR))
    batch_size = 2 ** round(math.log2(max(kept / STEPS_PER_EPOCH, 32)))
    model = {"name": cell.model, "norm": cell.norm, **MODEL, **NETWORKS[cell.model]}
    train = {
        "global_batch_size": batch_size,
        **TRAIN,
        "embedding_l2": ROW_PENALTY / batch_size,
        "seed": cell.seed,
        "loss": LOSSES[cell.loss],
        "evaluation_batch_size": 32_768,
        "deterministic": False,
    }
    return {"model": model, "train": train}


def curve_cells(*, quick: bool, tiny: bool = False) -> list[Cell]:
    """The learning curve, the important size first and the longest last.

    A log of N rows is N rows to learn from, a tenth of them the validation split; the test rows come
    on top, as many for every size. Layer norm: `norm_cells` shows what the others do.
    """
    seeds_of = {1_000_000: 3, 100_000: 3, 300_000: 3, 3_000_000: 1}
    networks, test = tuple(NETWORKS), 400_000
    if quick:
        seeds_of, networks, test = {60_000: 2, 20_000: 1}, ("deepfm", "dcn_v2"), 40_000
    if tiny:
        seeds_of, networks, test = {TINY: 1}, ("dcn_v2",), TINY
    cells = []
    for rows, seeds in seeds_of.items():
        log = _curve_log(rows, test)
        cells.append(Cell("curve", rows, log, LOGISTIC_REGRESSION))  # draws nothing
        for seed in range(seeds):
            cells += [Cell("curve", rows, log, name, seed) for name in (LIGHTGBM, *networks)]
    return cells


def norm_cells(*, quick: bool, tiny: bool = False) -> list[Cell]:
    """Every network with every normalization at the curve's important size, three seeds.

    The first seeds come first, and what the curve holds already is the same cell.
    """
    if tiny:
        return [Cell("curve", TINY, _curve_log(TINY, TINY), "dcn_v2")]
    log = _curve_log(60_000, 40_000) if quick else _curve_log(1_000_000, 400_000)
    rows = log.train + log.validation
    networks, seeds = (("deepfm",), 1) if quick else (tuple(NETWORKS), 3)
    return [
        Cell("curve", rows, log, name, seed, norm=norm)
        for seed in range(seeds)
        for norm in NORMS
        for name in networks
    ]


def _curve_log(rows: int, test: int) -> Log:
    return Log(rows - rows // 10, rows // 10, test)


def calibration_cells(*, quick: bool, tiny: bool = False) -> list[Cell]:
    """Every loss at both keep rates, layer norm; the splits hold the same rows at both."""
    if tiny:  # the curve's network under another heading: nothing more to train
        return [Cell("calibration", TINY, _curve_log(TINY, TINY), "dcn_v2")]
    # At a CTR of 2 percent 600,000 rows hold 12,000 clicks.
    train, held_out = (30_000, 20_000) if quick else (600_000, 600_000)
    return [
        Cell(
            "calibration",
            train + held_out,
            Log(train, held_out, held_out, drift=0.0, negative_keep_rate=rate, seed=12),
            "dcn_v2",
            loss=loss,
        )
        for rate in ((0.1,) if quick else (1.0, 0.1))
        for loss in LOSSES
    ]
