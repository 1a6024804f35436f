"""How good the models are, told as distance to the truth of the synthetic log.

    python benchmarks/model_quality.py [--only curve|norms|calibration] [--quick] [--workdir DIR] [--out FILE]

Three tables. The learning curve: every network, layer norm, at four log sizes, beside
scikit-learn's logistic regression and LightGBM, as Bayes AUC minus AUC on the same test rows. The
normalizations: the same distance of every network with each of four, at one size. The calibration:
every loss and negative keep rate against the true probabilities, raw and calibrated. Every cell is a
process of its own and leaves one JSON file in DIR/cells; a second start skips what is there, unless
the recipe has changed, and with --report nothing is run at all. All is drawn in DIR/quality.png.
All of it takes 157 minutes of processor time; --quick shows on a small log that everything runs, and
reaches no bar. Wants the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
from benchmarks.quality.picture import draw  # noqa: E402
from benchmarks.quality.plan import (  # noqa: E402
    BASELINES,
    NETWORKS,
    Cell,
    Log,
    calibration_cells,
    curve_cells,
    norm_cells,
    recipe,
)
from benchmarks.quality.tables import (  # noqa: E402
    bars_table,
    calibration_table,
    curve_table,
    middle_table,
    norms_table,
)
from jobs.show.progress import say  # noqa: E402


def run_cell(cell: Cell, workdir: Path, result_path: Path) -> None:
    """Runs a cell in its own process; raises RuntimeError with the end of its log when it fails."""
    cell_path, log_path = result_path.with_suffix(".cell"), result_path.with_suffix(".log")
    cell_path.write_text(json.dumps(cell.to_dict()))
    script = ROOT / "benchmarks" / "quality" / "cell.py"
    # Waiting threads that spin would burn the processor time of whatever else runs.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_WAIT_POLICY": "passive"}
    environment = {**quiet, **os.environ}
    command = [sys.executable, str(script), str(cell_path), str(workdir), str(result_path)]
    with log_path.open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False)
    if done.returncode or not result_path.exists():
        raise RuntimeError(f"{cell.name} failed:\n{log_path.read_text()[-2000:]}")
    cell_path.unlink()
    log_path.unlink()


def prepare_log(log: Log, workdir: Path) -> None:
    """Writes and preprocesses a log in a process of its own, unless that is done."""
    if (workdir / "data" / log.name / "_SUCCESS").exists():
        return
    say(f"preparing {log.name}")
    code = (
        "import json, sys; from pathlib import Path; "
        "from benchmarks.quality.data import prepare; from benchmarks.quality.plan import Log; "
        "prepare(Path(sys.argv[1]), Log(**json.loads(sys.argv[2])))"
    )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": path}
    arguments = [str(workdir), json.dumps(vars(log))]
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"preparing {log.name} failed:\n{done.stderr[-2000:]}")


def run_cells(
    cells: Sequence[Cell],
    workdir: Path,
    run: Callable[[Cell, Path, Path], None] = run_cell,
    prepare: Callable[[Log, Path], None] = prepare_log,
) -> list[str]:
    """Runs what has no result yet, in order; a cell that fails is told and left for the next start.

    Returns:
        Names of the cells that failed.
    """
    folder = workdir / "cells"
    for path in (folder, workdir / "data"):
        path.mkdir(parents=True, exist_ok=True)
    missing = [cell for cell in cells if read_result(cell, workdir) is None]
    say(f"{len(cells)} cells, {len(cells) - len(missing)} of them done")
    failed = []
    for number, cell in enumerate(missing, 1):
        result_path = folder / f"{cell.name}.json"
        started_s = time.perf_counter()
        try:
            prepare(cell.log, workdir)
            run(cell, workdir, result_path)
        except RuntimeError as error:
            say(str(error))
            failed.append(cell.name)
            continue
        result = json.loads(result_path.read_text())
        seconds = time.perf_counter() - started_s
        calibrated = result["calibrated"]
        say(
            f"[{number}/{len(missing)}] {cell.name}: distance {result['distance']:.4f}, "
            f"calibration {calibrated['prediction_over_truth']:.3f}, {seconds:.0f} s, "
            f"{result['peak_mb']:,.0f} MB"
        )
    return failed


def read_result(cell: Cell, workdir: Path) -> Result | None:
    """The cell's result with where its test logits lie; None without one by today's recipe."""
    path = workdir / "cells" / f"{cell.name}.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    same = result["cell"] == cell.to_dict() and result.get("recipe") == recipe(cell)
    return {**result, "logits": str(path.with_suffix(".npy"))} if same else None


def read_results(cells: Sequence[Cell], workdir: Path) -> list[Result]:
    """The results that there are."""
    return [found for cell in cells if (found := read_result(cell, workdir)) is not None]


def paired_difference(workdir: Path) -> Callable[[Result, Result], Interval]:
    """AUC(one) - AUC(other) on the test rows both scored, with DeLong's 95 % interval."""
    from models.metrics import auc_difference_interval

    def difference(one: Result, other: Result) -> Interval:
        log = Log(**one["cell"]["log"])
        label = np.load(workdir / "data" / f"{log.name}.labels.npy")
        found = auc_difference_interval(label, np.load(one["logits"]), np.load(other["logits"]))
        return found.estimate, found.low, found.high

    return difference


def report(
    curve: Sequence[Cell], norms: Sequence[Cell], calibration: Sequence[Cell], workdir: Path
) -> tuple[dict[str, Any], list[Bar]]:
    """Prints and draws what has been measured; the figures as plain data, and the bars."""
    found: dict[str, Any] = {}
    bars: list[Bar] = []
    points: dict[tuple[int, str], CurvePoint] = {}
    if curve:
        results = read_results(curve, workdir)
        points = curve_points(results, paired_difference(workdir))
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
        found["curve_cells"] = results
    distances: dict[tuple[str, str], list[float]] = {}
    if norms:
        results = read_results(norms, workdir)
        distances = norm_distances(results)
        print(norms_table(distances, norms[0].rows))
        found["norm_cells"] = results
    if calibration:
        results = read_results(calibration, workdir)
        print(calibration_table(results))
        bars += calibration_bars(results, len(calibration), LEAST_CLICKS)
        found["calibration_cells"] = results
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
    workdir = args.workdir or Path(f"model_quality{'_quick' if args.quick else ''}")
    curve, norms, calibration = (
        cells(quick=args.quick) if args.only in (None, name) else []
        for name, cells in (
            ("curve", curve_cells),
            ("norms", norm_cells),
            ("calibration", calibration_cells),
        )
    )
    # The important size first, then calibration; what two tables share is one cell.
    first = [cell for cell in curve if cell.rows == curve[0].rows]
    wanted = [
        cell
        for cell in dict.fromkeys((*first, *calibration, *curve, *norms))
        if not args.models or cell.model in args.models
    ]
    failed = [] if args.report else run_cells(wanted, workdir)
    found, bars = report(curve, norms, calibration, workdir)
    out = args.out or workdir / "quality.json"
    out.write_text(json.dumps(found, indent=1))
    if failed:
        say(f"failed: {', '.join(failed)}; the same command tries them again")
    missed = any(bar.holds is False for bar in bars) and not args.quick
    return 1 if failed else 3 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
