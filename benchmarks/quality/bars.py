"""From the results of cells to table rows and bars; knows nothing of how a cell is run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.quality.plan import LIGHTGBM, LOGISTIC_REGRESSION

__all__ = [
    "Bar",
    "CurvePoint",
    "Result",
    "calibration_bars",
    "curve_bars",
    "curve_points",
    "gap_closed",
    "norm_distances",
]

GAP_CLOSED = 0.5
RATIO_MARGIN, CALIBRATION_ERROR, LEAST_CLICKS = 0.02, 0.001, 10_000

Interval = tuple[float, float, float]
Result = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Bar:
    """One requirement: what it says, what was measured, whether it holds (None: not measured)."""

    rule: str
    measured: str
    holds: bool | None


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """A model at a log size, over its seeds.

    Attributes:
        seeds: how many.
        auc, distance: means over the seeds; distance is Bayes AUC - AUC on the same rows.
        deviation: standard deviation of the distance over the seeds; None of a single one.
        against_lightgbm: mean AUC difference to LightGBM of the same seeds, with its 95 % interval over
            test rows and seeds; None where LightGBM is not there.
    """

    seeds: int
    auc: float
    bayes_auc: float
    distance: float
    deviation: float | None
    against_lightgbm: Interval | None


def curve_points(
    results: Iterable[Result],
    difference: Callable[[Sequence[Result], Sequence[Result]], Interval],
) -> dict[tuple[int, str], CurvePoint]:
    """Every (rows, model) that has a result.

    Args:
        results: of curve cells.
        difference: (a model's results, LightGBM's of the same seeds) -> (difference of AUC, low, high).
    """
    found: dict[tuple[int, str], list[Result]] = {}
    for result in results:
        cell = result["cell"]
        found.setdefault((cell["rows"], cell["model"]), []).append(result)
    points = {}
    for (rows, model), group in sorted(found.items()):
        trees = {tree["cell"]["seed"]: tree for tree in found.get((rows, LIGHTGBM), [])}
        both = [one for one in group if one["cell"]["seed"] in trees]
        against = None
        if both and model != LIGHTGBM:
            against = difference(both, [trees[one["cell"]["seed"]] for one in both])
        distances = [one["distance"] for one in group]
        points[rows, model] = CurvePoint(
            seeds=len(group),
            auc=float(np.mean([one["auc"] for one in group])),
            bayes_auc=group[0]["bayes_auc"],
            distance=float(np.mean(distances)),
            deviation=float(np.std(distances, ddof=1)) if len(group) > 1 else None,
            against_lightgbm=against,
        )
    return points


def norm_distances(results: Iterable[Result]) -> dict[tuple[str, str], list[float]]:
    """Distances to Bayes of the seeds, by (model, norm); the results are of one log size."""
    found: dict[tuple[str, str], list[float]] = {}
    for result in results:
        cell = result["cell"]
        found.setdefault((cell["model"], cell["norm"]), []).append(result["distance"])
    return found


def gap_closed(points: Mapping[tuple[int, str], CurvePoint], rows: int, model: str) -> float | None:
    """Share of logistic regression's distance that the model does away with; None: not measured."""
    mine, linear = points.get((rows, model)), points.get((rows, LOGISTIC_REGRESSION))
    return None if mine is None or linear is None else 1 - mine.distance / linear.distance


def curve_bars(
    points: Mapping[tuple[int, str], CurvePoint],
    sizes: Iterable[int],
    networks: Iterable[str],
    middle: int,
) -> list[Bar]:
    """The bars of the learning curve; one that lacks a cell is not measured, never passed.

    Args:
        points: by (rows, model).
        sizes: that the curve should have.
        networks: that it should have.
        middle: the size at which the gap to logistic regression is judged.
    """
    sizes, networks = sorted(sizes), list(networks)
    complete = all((rows, name) in points for rows in sizes for name in networks)
    rising = [
        name
        for name in networks
        if any(
            (a, name) in points
            and (b, name) in points
            and points[b, name].distance >= points[a, name].distance
            for a, b in itertools.pairwise(sizes)
        )
    ]
    falls = Bar(
        f"the distance falls with data for every network over {len(sizes)} sizes",
        f"not for {', '.join(rising)}" if rising else "for all measured",
        False if rising else True if complete and len(sizes) > 1 else None,
    )
    shares = {name: gap_closed(points, middle, name) for name in networks}
    known = {name: share for name, share in shares.items() if share is not None}
    best = max(known, key=known.__getitem__, default=None)
    closes = Bar(
        f"the best network closes {GAP_CLOSED:.0%} of logistic regression's gap, {middle:,} rows",
        "-" if best is None else f"{best} closes {known[best]:.0%}",
        None if best is None else known[best] >= GAP_CLOSED,
    )
    return [falls, closes, *(_not_below_lightgbm(points, rows, networks) for rows in sizes)]


def _not_below_lightgbm(
    points: Mapping[tuple[int, str], CurvePoint], rows: int, networks: list[str]
) -> Bar:
    pairs = {
        name: points[rows, name].against_lightgbm for name in networks if (rows, name) in points
    }
    known = {name: pair for name, pair in pairs.items() if pair is not None}
    below = [name for name, (_, _, high) in known.items() if high < 0]
    worst = min(known, key=lambda name: known[name][0], default=None)
    holds = False if below else True if len(known) == len(networks) else None
    text = "-" if worst is None else f"lowest: {worst} {known[worst][0]:+.4f}"
    rule = f"no network is below LightGBM by more than the 95 % interval, {rows:,} rows"
    return Bar(rule, f"{text}{'; below: ' + ', '.join(below) if below else ''}", holds)


def calibration_bars(results: Iterable[Result], wanted: int, least_clicks: int) -> list[Bar]:
    """The bars of the calibration table.

    Args:
        results: of calibration cells.
        wanted: cells that the table should have.
        least_clicks: in validation and in test.
    """
    results = list(results)
    complete = len(results) == wanted
    ratios = [result["calibrated"]["prediction_over_truth"] for result in results]
    errors = [result["calibrated"]["calibration_error"] for result in results]
    clicks = [result["clicks"][split] for result in results for split in ("validation", "test")]

    def bar(rule: str, measured: str, holds: bool) -> Bar:
        if not results:
            return Bar(rule, "-", None)
        return Bar(rule, measured, False if not holds else True if complete else None)

    return [
        bar(
            f"calibrated: mean prediction over mean true probability within 1 +- {RATIO_MARGIN}",
            f"{min(ratios, default=0):.4f} .. {max(ratios, default=0):.4f}",
            all(abs(ratio - 1) <= RATIO_MARGIN for ratio in ratios),
        ),
        bar(
            f"calibrated: error against true probabilities below {CALIBRATION_ERROR}",
            f"at most {max(errors, default=0):.5f}",
            all(error < CALIBRATION_ERROR for error in errors),
        ),
        bar(
            f"at least {least_clicks:,} clicks each in validation and test",
            f"at least {min(clicks, default=0):,}",
            all(count >= least_clicks for count in clicks),
        ),
    ]
