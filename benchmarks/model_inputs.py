"""What the ads around the target and the ad's picture add: the same model with them and without.

    python benchmarks/model_inputs.py [--only sequences|images] [--work DIR] [--out FILE] [--quick|--tiny]
                                      [--parallel N]

Sequences: DSTN in its three aggregations on a generated log whose true probabilities depend on the
contextual, clicked and unclicked ads, against the same config on the same rows with these columns
emptied. Pictures: ad_image with batch, group and layer norm against DCN-v2 on the same columns
without the picture, on product photographs of Fashion-MNIST. THE CLICKS ON THE PICTURES ARE SIMULATED
(pipeline/synthetic/creatives.py): nobody ever clicked on them. Test pictures are none of the training
pictures. The sprite is looked for in CLICKPARITY_SAMPLE_DATA/fashion_mnist_sprite, else --sprite.

Gains are of test AUC over paired seeds, with a 95 % interval over test rows and seeds together. With
--work, what is done is kept and not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from experiments.cell import Cell, CellResult, over_seeds  # noqa: E402
from experiments.comparison import compare  # noqa: E402
from experiments.scheduler import Budget, run_cells  # noqa: E402
from jobs.show.tables import table  # noqa: E402
from pipeline.errors import ClickparityError  # noqa: E402
from pipeline.preprocessing.job import preprocess  # noqa: E402
from pipeline.records.data_directory import DataDirectory  # noqa: E402
from pipeline.schema import FeatureSchema  # noqa: E402
from pipeline.synthetic.creatives import CREATIVE_SCHEMA, CreativeLog  # noqa: E402
from pipeline.synthetic.sequences import AD_KINDS, SequenceLog  # noqa: E402

AGGREGATIONS = ("pooling", "self_attention", "interactive")
WITHOUT = "without sequences"
NORMS = ("batch", "group", "layer")
SIZES = {"embedding_dim": 8, "hidden_units": [128, 64]}
AUXILIARY = [[f"{kind}_ads", f"{kind}_topics"] for kind in AD_KINDS]
TRAIN = {
    "global_batch_size": 512,
    "learning_rate": 0.002,
    "embedding_learning_rate": 0.05,
    "embedding_initial_accumulator": 0.1,
}
# few rows make few steps: moving statistics would still be on their way from zero and one
OF_PICTURES = {"global_batch_size": 256, "reestimate_batch_statistics": True}

Cells = dict[str, list[CellResult]]  # by model, a list over seeds
Plan = dict[str, tuple[DataDirectory, dict[str, Any]]]  # by model: its data and config


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much of the benchmark is run.

    Attributes:
        seeds: trainings of each model.
        parallel: trainings side by side.
        aggregations: of DSTN.
        norms: of the models with and without the picture.
    """

    seeds: int
    parallel: int = 1
    aggregations: tuple[str, ...] = AGGREGATIONS
    norms: tuple[str, ...] = NORMS


def prepared(path: Path, schema: FeatureSchema, rows: Callable[[], pa.Table]) -> DataDirectory:
    """The data directory of a table, made on the first call."""
    import pyarrow.parquet as pq

    log = path / "log.parquet"
    if not log.exists():
        path.mkdir(parents=True, exist_ok=True)
        beside = log.with_suffix(".partial")
        pq.write_table(rows(), beside, row_group_size=100_000)
        beside.replace(log)
    return preprocess(schema, [str(log)], path / "data")


def sequence_cells(work: Path, num_rows: int, extent: Extent) -> Cells:
    """Test scores with and without the sequences, a list over seeds for each."""
    raw = FeatureSchema.load("synthetic_sequences").model_dump()
    schema = FeatureSchema.model_validate({**raw, "source": {"kind": "parquet"}})
    log = SequenceLog(num_rows, ctr=0.1, drift=0.0)

    def full() -> pa.Table:
        return pa.Table.from_batches(log.batches())

    def emptied() -> pa.Table:
        rows = full()
        nothing = pa.array([""] * rows.num_rows)
        for name in (column for ads in AUXILIARY for column in ads):
            rows = rows.set_column(rows.column_names.index(name), name, nothing)
        return rows

    given = prepared(work / "sequences", schema, full)
    removed = prepared(work / "without-sequences", schema, emptied)
    plan: Plan = {}
    # of no ads all three aggregations make the same: zeros
    for name, data in ((WITHOUT, removed), *((a, given) for a in extent.aggregations)):
        aggregation = "interactive" if name == WITHOUT else name
        options = {"aggregation": aggregation, "auxiliary": AUXILIARY, "attention_units": 32}
        model = {"name": "dstn", "norm": "layer", **SIZES, "dstn": options}
        plan[name] = (data, model)
    return trained(plan, TRAIN, work / "cells", "dstn", extent)


def image_cells(work: Path, sprite: Path, num_rows: int, extent: Extent) -> Cells:
    """Test scores with and without the picture, a list over seeds for each."""
    schema = FeatureSchema.from_yaml(CREATIVE_SCHEMA, "CREATIVE_SCHEMA")
    data = prepared(work / "pictures", schema, lambda: CreativeLog(*cut(sprite), num_rows).table())
    plan: Plan = {}
    for norm in extent.norms:
        tabular = {"name": "dcn_v2", "norm": {"kind": norm}, **SIZES}
        image = {"filters": [8, 16], "embedding_dim": 16}
        pictured = {"name": "ad_image", "norm": {"kind": norm}, **SIZES, "image": image}
        plan |= {f"dcn_v2, {norm}": (data, tabular), f"ad_image, {norm}": (data, pictured)}
    return trained(plan, {**TRAIN, **OF_PICTURES}, work / "cells", "pictures", extent)


def cut(sprite: Path) -> tuple[np.ndarray, np.ndarray]:
    """The sprite's 30 x 30 pictures [900, 28, 28] and their classes [900]: three rows a class."""
    import tensorflow as tf

    pixels = tf.io.decode_png(sprite.read_bytes(), channels=1).numpy()[:, :, 0]
    pictures = pixels.reshape(30, 28, 30, 28).swapaxes(1, 2).reshape(900, 28, 28)
    return pictures, np.repeat(np.arange(30) // 3, 30)


def trained(plan: Plan, train: dict[str, Any], work: Path, group: str, extent: Extent) -> Cells:
    """Every model of the plan with every seed: all models with one seed before the next."""
    by_model = {
        name: over_seeds(
            Cell.of(data, {"model": model, "train": train}, name=f"{group}, {name}"),
            range(extent.seeds),
        )
        for name, (data, model) in plan.items()
    }
    in_order = [cells[seed] for seed in range(extent.seeds) for cells in by_model.values()]
    results: dict[str, CellResult] = {}
    for outcome in run_cells(in_order, work, Budget(extent.parallel)):
        if not isinstance(outcome, CellResult):
            raise ClickparityError(f"{outcome.cell.title} must end", outcome.reason, outcome.log)
        results[outcome.cell.identity] = outcome
    return {name: [results[cell.identity] for cell in cells] for name, cells in by_model.items()}


def figures_of(cells: list[CellResult]) -> dict[str, Any]:
    """AUC over the seeds, and how far the best possible is from it."""
    areas = [cell.metrics["test"]["auc"] for cell in cells]
    bayes = cells[0].metrics["test"]["truth"]["bayes_auc"]
    return {
        "auc": float(np.mean(areas)),
        "deviation": float(np.std(areas, ddof=1)) if len(areas) > 1 else None,
        "bayes_auc": bayes,
        "distance_to_bayes": bayes - float(np.mean(areas)),
    }


def report(title: str, cells: Cells, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Prints one table; returns its figures. A pair is (with, without)."""
    found: dict[str, Any] = {name: figures_of(results) for name, results in cells.items()}
    scores = {name: [cell.scores() for cell in results] for name, results in cells.items()}
    for ours, without in pairs:
        gain = compare(scores[ours], scores[without], "auc")
        figures = {"gain": gain.difference, "low": gain.low, "high": gain.high}
        found[ours] |= {"against": without, **figures, "detectable": gain.detectable}
    lines = []
    for name, figures in found.items():
        against = ""
        if "gain" in figures:
            against = f"{figures['gain']:+.4f} [{figures['low']:+.4f}, {figures['high']:+.4f}]"
        spread = "" if figures["deviation"] is None else f" ± {figures['deviation']:.4f}"
        area = f"{figures['auc']:.4f}{spread}"
        lines.append([name, area, f"{figures['distance_to_bayes']:.4f}", against])
    print(table(["model", "test AUC", "to Bayes AUC", "gain [95 %]"], lines, title))
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("sequences", "images"))
    parser.add_argument("--work", type=Path, help="keep data and trainings there, and go on there")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sequence-rows", type=int, default=300_000)
    parser.add_argument("--image-rows", type=int, default=120_000)
    parser.add_argument("--sprite", type=Path, help="fashion-mnist-sprite.png")
    parser.add_argument("--parallel", type=int, default=1, help="trainings side by side")
    parser.add_argument("--quick", action="store_true", help="one seed, few rows: does it run?")
    parser.add_argument("--tiny", action="store_true", help="fewer still, one model and its peer")
    args = parser.parse_args(argv)
    if args.quick or args.tiny:
        args.seeds, args.sequence_rows, args.image_rows = 1, 20_000, 5_000
    extent = Extent(args.seeds, args.parallel)
    if args.tiny:
        args.sequence_rows, args.image_rows = 3_000, 1_500
        extent = Extent(1, args.parallel, AGGREGATIONS[:1], NORMS[:1])
    samples = os.environ.get("CLICKPARITY_SAMPLE_DATA", "")
    sprite = args.sprite or Path(samples) / "fashion_mnist_sprite" / "fashion-mnist-sprite.png"
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        if args.only != "images":
            cells = sequence_cells(work, args.sequence_rows, extent)
            title = f"DSTN with and without its ad sequences, {args.sequence_rows:,} generated rows"
            results["sequences"] = report(title, cells, [(a, WITHOUT) for a in extent.aggregations])
        if args.only != "sequences" and not sprite.is_file():
            print(f"pictures: skipped; give --sprite, or set CLICKPARITY_SAMPLE_DATA ({sprite})")
        elif args.only != "sequences":
            cells = image_cells(work, sprite, args.image_rows, extent)
            title = f"SIMULATED clicks on Fashion-MNIST pictures, {args.image_rows:,} rows"
            pairs = [(f"ad_image, {norm}", f"dcn_v2, {norm}") for norm in extent.norms]
            results["images"] = {"clicks": "simulated", "models": report(title, cells, pairs)}
    if args.out:
        sizes = {"seeds": args.seeds, "sequence": args.sequence_rows, "image": args.image_rows}
        machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
        content = {"machine": machine, "rows": sizes, "results": results}
        args.out.write_text(json.dumps(content, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
