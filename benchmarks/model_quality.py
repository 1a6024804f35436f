"""How good the models are, told as distance to the truth of the synthetic log.

    python benchmarks/model_quality.py [--only curve|norms|calibration] [--quick|--tiny]
                                       [--parallel N] [--workdir DIR] [--out FILE]

Three tables. The learning curve: every network, layer norm, at four log sizes, beside
scikit-learn's logistic regression and LightGBM, as Bayes AUC minus AUC on the same test rows. The
normalizations: the same distance of every network with each of four, at one size. The calibration:
every loss and negative keep rate against the true probabilities, raw and calibrated. Every cell is one
of `experiments`, kept in DIR/cells; a second start skips what is there, unless the recipe has changed,
and with --report nothing is run at all. All is drawn in DIR/quality.png. All of it takes 157 minutes of
processor time; --quick shows on a small log that everything runs, --tiny on a smaller one still, and
both reach no bar. Wants the extra `bench`; without LightGBM its cells are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from benchmarks.quality.bars import (  # noqa: E402
    LEAST_CLICKS,
    Bar,
    CurvePoint,
    Interval,
    Result,
    calibration_bars,
    curve_bars,
    curve_points,
    norm_distances,
)
from benchmarks.quality.data import opened  # noqa: E402
from benchmarks.quality.picture import draw  # noqa: E402
from benchmarks.quality.plan import (  # noqa: E402
    BASELINES,
    NETWORKS,
    Cell,
    Log,
    calibration_cells,
    curve_cells,
    engine_cell,
    norm_cells,
)
from benchmarks.quality.tables import (  # noqa: E402
    bars_table,
    calibration_table,
    curve_table,
    middle_table,
    norms_table,
)
from experiments import scheduler  # noqa: E402
from experiments.cell import CellFailure, CellResult, read_result  # noqa: E402
from experiments.comparison import compare  # noqa: E402
from experiments.scheduler import Budget  # noqa: E402
from jobs.show.progress import say  # noqa: E402
from pipeline.records.data_directory import DataDirectory  # noqa: E402

# Of a baseline: what it imports, and what installs that.
PEERS = {
    "logistic_regression": ("sklearn", "scikit-learn"),
    "lightgbm": ("lightgbm", "lightgbm"),
}


def prepare_log(log: Log, workdir: Path) -> None:
    """Writes and preprocesses a log in a process of its own, unless that is done."""
    if opened(workdir, log) is not None:
        return
    say(f"preparing {log.name}")
    code = (
        "import json, sys; from pathlib import Path; "
        "from benchmarks.quality.data import prepare; from benchmarks.quality.plan import Log; "
        "prepare(Path(sys.argv[1]), Log(**json.loads(sys.argv[2])))"
    )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    arguments = [str(workdir), json.dumps(vars(log))]
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"preparing {log.name} failed:\n{done.stderr[-2000:]}")


def run_cells(
    cells: Sequence[Cell],
    workdir: Path,
    parallel: int = 1,
    prepare: Callable[[Log, Path], None] = prepare_log,
) -> list[str]:
    """Runs what has no result yet, in order; what fails is reported and left for the next start.

    Returns:
        Names of the cells that failed.
    """
    (workdir / "data").mkdir(parents=True, exist_ok=True)
    failed = []
    for log, group in itertools.groupby(cells, key=lambda cell: cell.log):
        of_log = list(group)
        try:
            prepare(log, workdir)
        except RuntimeError as error:
            say(str(error))
            failed += [cell.name for cell in of_log]
            continue
        data = opened(workdir, log)
        assert data is not None, "prepare leaves a finished directory"
        wanted = [engine_cell(cell, data) for cell in of_log]
        found = scheduler.run_cells(wanted, workdir / "cells", Budget(parallel), say=say)
        failed += [one.cell.name for one in found if isinstance(one, CellFailure)]
    return failed


def read_results(cells: Sequence[Cell], workdir: Path) -> list[Result]:
    """The results that there are, with the engine's own under "engine"."""
    found: list[Result] = []
    for log, group in itertools.groupby(cells, key=lambda cell: cell.log):
        data = opened(workdir, log)
        if data is None:
            continue
        for cell in group:
            result = read_result(workdir / "cells", engine_cell(cell, data))
            if result is not None:
                found.append(_figures(cell, data, result))
    return found


def _figures(cell: Cell, data: DataDirectory, result: CellResult) -> dict[str, Any]:
    metrics = result.metrics["test"]
    splits = ("train", "validation", "test")
    counts = {name: data.summary["splits"][name] for name in splits}
    return {
        "cell": cell.to_dict(),
        "rows": {name: data.num_rows(name) for name in splits},
        "clicks": {n: round(c["weight"] * data.label_rate(n)) for n, c in counts.items()},
        "auc": metrics["auc"],
        "bayes_auc": metrics["truth"]["bayes_auc"],
        "distance": metrics["truth"]["bayes_auc"] - metrics["auc"],
        **{name: metrics["truth"][name] for name in ("raw", "corrected", "calibrated")},
        "training": result.training,
        "cost": result.cost,
        "engine": result,
    }


def auc_difference(ours: Sequence[Result], other: Sequence[Result]) -> Interval:
    """AUC(ours) - AUC(other) on the test rows that both scored, over the seeds, with its 95 % interval."""
    scores, others = ([one["engine"].scores() for one in side] for side in (ours, other))
    found = compare(scores, others, "auc")
    return found.difference, found.low, found.high


def _plain(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [{k: v for k, v in result.items() if k != "engine"} for result in results]


def report(
    curve: Sequence[Cell], norms: Sequence[Cell], calibration: Sequence[Cell], workdir: Path
) -> tuple[dict[str, Any], list[Bar]]:
    """Prints and draws what has been measured; the figures as plain data, and the bars."""
    found: dict[str, Any] = {}
    bars: list[Bar] = []
    points: dict[tuple[int, str], CurvePoint] = {}
    if curve:
        results = read_results(curve, workdir)
        points = curve_points(results, auc_difference)
        sizes = sorted({cell.rows for cell in curve})
        middle = curve[0].rows
        print(curve_table(points, sizes))
        if any(size == middle for size, _ in points):
            print(middle_table(points, middle))
        networks = [name for name in NETWORKS if any(cell.model == name for cell in curve)]
        bars += curve_bars(points, sizes, networks, middle)
        found["curve"] = [
            {"rows": rows, "model": model, **vars(point)} for (rows, model), point in points.items()
        ]
        found["curve_cells"] = _plain(results)
    distances: dict[tuple[str, str], list[float]] = {}
    if norms:
        results = read_results(norms, workdir)
        distances = norm_distances(results)
        print(norms_table(distances, norms[0].rows))
        found["norm_cells"] = _plain(results)
    if calibration:
        results = read_results(calibration, workdir)
        print(calibration_table(results))
        bars += calibration_bars(results, len(calibration), LEAST_CLICKS)
        found["calibration_cells"] = _plain(results)
    picture = workdir / "quality.png"
    draw(points, distances, found.get("calibration_cells", []), picture)
    say(f"{picture} shows the tables")
    if bars:
        print(bars_table(bars))
    found["bars"] = [vars(bar) for bar in bars]
    return found, bars


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("curve", "norms", "calibration"))
    parser.add_argument("--quick", action="store_true", help="a small log; reaches no bar")
    parser.add_argument("--tiny", action="store_true", help="three cells on few rows: does it run?")
    parser.add_argument("--parallel", type=int, default=1, help="cells side by side")
    parser.add_argument(
        "--models", nargs="+", choices=(*BASELINES, *NETWORKS), help="run only cells of these"
    )
    parser.add_argument("--report", action="store_true", help="run nothing, print what is there")
    parser.add_argument(
        "--workdir", type=Path, help="default: model_quality or model_quality_quick"
    )
    parser.add_argument(
        "--out", type=Path, help="the figures as JSON; default WORKDIR/quality.json"
    )
    args = parser.parse_args(argv)
    size = "tiny" if args.tiny else "quick" if args.quick else ""
    workdir = args.workdir or Path("_".join(filter(None, ("model_quality", size))))
    curve, norms, calibration = (
        cells(quick=args.quick, tiny=args.tiny) if args.only in (None, name) else []
        for name, cells in (
            ("curve", curve_cells),
            ("norms", norm_cells),
            ("calibration", calibration_cells),
        )
    )
    # The important size first, then calibration; what two tables share is one cell.
    first = [cell for cell in curve if cell.rows == curve[0].rows]
    absent = [n for n, (module, _) in PEERS.items() if importlib.util.find_spec(module) is None]
    for name in absent:
        say(f"{name}: skipped; pip install {PEERS[name][1]} (extra `bench`)")
    wanted = [
        cell
        for cell in dict.fromkeys((*first, *calibration, *curve, *norms))
        if cell.model not in absent and (not args.models or cell.model in args.models)
    ]
    failed = [] if args.report else run_cells(wanted, workdir, args.parallel)
    found, bars = report(curve, norms, calibration, workdir)
    out = args.out or workdir / "quality.json"
    out.write_text(json.dumps(found, indent=1))
    if failed:
        say(f"failed: {', '.join(failed)}; the same command tries them again")
    missed = any(bar.holds is False for bar in bars) and not size
    return 1 if failed else 3 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
