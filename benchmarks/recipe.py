"""The default recipe against tuned peers and against the recipe before it, on real samples and drawn logs.

    python benchmarks/recipe.py [--quick|--tiny] [--logs NAME ...] [--workdir DIR] [--out FILE] [--doc FILE]

Ours is a network as nobody has turned a knob of it: DCN-v2, every option its default. It stands against
one epoch of the last iterate (the default before), scikit-learn's logistic regression and LightGBM, both
tuned on the validation split: paired differences on the same test rows, several seeds, intervals over rows
and trainings together, corrected for the number of peers of a log (`experiments.comparison`). The bars:
within .001 of AUC and .5 % of log loss of the best peer, or an interval that holds it. Real samples are
read below $CLICKPARITY_SAMPLE_DATA. Cells are resumable: a second start runs what is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from benchmarks.recipes.logs import LOGS, SAMPLES, RecipeLog, available, prepare  # noqa: E402
from experiments.cell import Cell, CellResult, over_seeds  # noqa: E402
from experiments.comparison import Comparison, compared_with  # noqa: E402
from experiments.scheduler import run_cells  # noqa: E402
from pipeline.records.data_directory import DataDirectory  # noqa: E402

BASELINE = f"{ROOT / 'benchmarks' / 'quality' / 'baselines.py'}:fit_and_score"
OURS, BEFORE = "default", "one epoch, last iterate"
PEERS = {"logistic regression": "logistic_regression", "LightGBM": "lightgbm"}
BEFORE_OPTIONS = {
    "epochs": 1,
    "averaging": "none",
    "early_stopping": False,
    "reestimate_batch_statistics": False,
}
AUC_MARGIN, LOSS_SHARE = 0.001, 0.005
TINY_MODEL = {"name": "dcn_v2", "hidden_units": [8], "embedding_dim": 4}


def peers() -> dict[str, str]:
    """The peers that are installed; a line on each that is not."""
    found = {}
    for name, baseline in PEERS.items():
        if importlib.util.find_spec("lightgbm" if baseline == "lightgbm" else "sklearn"):
            found[name] = baseline
        else:
            print(f"{name}: skipped; pip install 'clickparity[bench]'", file=sys.stderr)
    return found


def cells_of(
    data: DataDirectory,
    model: Mapping[str, Any],
    seeds: Sequence[int],
    baselines: Mapping[str, str],
) -> dict[str, list[Cell]]:
    """By contestant, one cell a seed; a peer that draws nothing has the same one for all."""
    own = {
        OURS: Cell.of(data, {"model": model}, name=OURS),
        BEFORE: Cell.of(data, {"model": model, "train": BEFORE_OPTIONS}, name=BEFORE),
    }
    cells = {name: over_seeds(cell, seeds) for name, cell in own.items()}
    for name, baseline in baselines.items():
        drawn = seeds if baseline == "lightgbm" else [0] * len(seeds)
        cells[name] = [
            Cell.of(data, {"baseline": baseline}, seed, runner=BASELINE, name=name)
            for seed in drawn
        ]
    return cells


def compared(found: Mapping[str, list[CellResult]]) -> list[Comparison]:
    """Ours against everybody in AUC and log loss. Differences are ours minus theirs."""
    ours = [result.scores("test") for result in found[OURS]]
    loss = sum(result.metrics["test"]["log_loss"] for result in found[OURS]) / len(ours)
    others = {k: [r.scores("test") for r in v] for k, v in found.items() if k != OURS}
    comparisons = []
    for metric, margin in (("auc", AUC_MARGIN), ("log_loss", LOSS_SHARE * loss)):
        # Named the other way round: every other is a candidate against ours, then turned.
        for each in compared_with(ours, others, metric, name=OURS, margin=margin):
            comparisons.append(_turned(each))
    return comparisons


def _turned(each: Comparison) -> Comparison:
    return dataclasses.replace(
        each,
        ours=each.other,
        other=each.ours,
        difference=-each.difference,
        low=-each.high,
        high=-each.low,
        by_seed=tuple(-value for value in each.by_seed),
    )


def holds(each: Comparison) -> bool:
    """Whether ours is worse by no more than the margin, or the interval does not exclude a tie."""
    worse = -each.difference if each.metric == "auc" else each.difference
    return worse <= each.margin or each.low <= 0.0 <= each.high


def report(log: RecipeLog, data: DataDirectory, found: Mapping[str, list[CellResult]]) -> dict:
    """The figures of one log as plain data."""

    def mean(name: str, metric: str) -> float:
        values = [result.metrics["test"][metric] for result in found[name]]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else math.nan

    steps = {
        name: sum(r.training["global_step"] for r in found[name]) / len(found[name])
        for name in (OURS, BEFORE)
    }
    comparisons = compared(found)
    return {
        "log": log.name,
        "rows": {split: data.num_rows(split) for split in ("train", "validation", "test")},
        "clicks": data.label_rate("train"),
        "seeds": len(found[OURS]),
        "metrics": {
            name: {m: mean(name, m) for m in ("auc", "log_loss", "calibration_ratio")}
            for name in found
        },
        "steps": steps[OURS] / steps[BEFORE],
        "comparisons": [{**each.to_json(), "holds": holds(each)} for each in comparisons],
    }


def table(reports: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: a row for each log and contestant."""
    lines = [
        "| log (training rows, clicks) | contestant | AUC | log loss | calibration "
        "| default minus it: AUC | log loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in reports:
        title = f"{each['log']} ({each['rows']['train']:,}, {each['clicks']:.1%})"
        for name, metrics in each["metrics"].items():
            differences = [
                _difference(next((c for c in each["comparisons"] if _is(c, name, m)), None))
                for m in ("auc", "log_loss")
            ]
            lines.append(
                f"| {title} | {name} | {metrics['auc']:.4f} | {metrics['log_loss']:.4f} "
                f"| {metrics['calibration_ratio']:.2f} | {differences[0]} | {differences[1]} |"
            )
            title = ""
    return "\n".join(lines)


def _is(comparison: Mapping[str, Any], name: str, metric: str) -> bool:
    return comparison["other"] == name and comparison["metric"] == metric


def _difference(c: Mapping[str, Any] | None) -> str:
    if c is None:
        return ""
    ends = "" if c["low"] is None else f" [{c['low']:+.4f}, {c['high']:+.4f}]"
    return f"{c['difference']:+.4f}{ends}{'' if c['holds'] else ' **behind**'}"


def run_log(
    log: RecipeLog, workdir: Path, model: Mapping[str, Any], seeds: Sequence[int]
) -> dict | None:
    """Runs what is missing of a log; None where a contestant failed."""
    data = prepare(log, workdir)
    cells = cells_of(data, model, seeds, peers())
    outcomes = run_cells([cell for group in cells.values() for cell in group], workdir / "cells")
    rest = iter(outcomes)
    found = {name: [next(rest) for _ in group] for name, group in cells.items()}
    whole = {n: [r for r in g if isinstance(r, CellResult)] for n, g in found.items()}
    if any(len(whole[name]) < len(cells[name]) for name in cells):
        print(f"{log.name}: a cell failed; the same command tries it again", file=sys.stderr)
        return None
    return report(log, data, whole)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="one seed")
    group.add_argument("--tiny", action="store_true", help="seconds: does it run?")
    parser.add_argument("--logs", nargs="+", choices=[log.name for log in LOGS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workdir", type=Path, default=Path("recipe"))
    parser.add_argument("--out", type=Path, help="the figures as JSON; default WORKDIR/recipe.json")
    parser.add_argument("--doc", type=Path, help="the table as Markdown")
    args = parser.parse_args(argv)
    logs: Iterable[RecipeLog] = [log for log in LOGS if not args.logs or log.name in args.logs]
    if args.tiny:
        logs = [RecipeLog("synthetic tiny", rows=3_000, ctr=0.2)]
    model = TINY_MODEL if args.tiny else {"name": "dcn_v2"}
    seeds = range(2 if args.tiny else 1 if args.quick else args.seeds)
    reports = []
    for log in logs:
        if not available(log):
            print(f"{log.name}: skipped; set {SAMPLES} to the sample data", file=sys.stderr)
            continue
        found = run_log(log, args.workdir, model, seeds)
        reports += [found] if found else []
    print(table(reports))
    missed = [
        f"{r['log']}: {c['metric']} against {c['other']}"
        for r in reports
        for c in r["comparisons"]
        if not c["holds"]
    ]
    print("steps against the default before: " + _steps(reports))
    print("behind by more than the bar: " + ("; ".join(missed) or "nowhere"))
    out = args.out or args.workdir / "recipe.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"logs": reports, "missed": missed}, indent=1))
    if args.doc:
        args.doc.write_text(table(reports) + "\n")
    return 3 if missed and not (args.tiny or args.quick) else 0


def _steps(reports: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{each['log']} {each['steps']:.2f}" for each in reports)


if __name__ == "__main__":
    sys.exit(main())
