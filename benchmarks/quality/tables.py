"""What the benchmark prints, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.quality.bars import Bar, CurvePoint, Result, gap_closed
from benchmarks.quality.plan import BASELINES, NETWORKS, NORMS
from jobs.show.tables import table

__all__ = ["bars_table", "calibration_table", "curve_table", "middle_table", "norms_table"]


def _with_deviation(mean: float, deviation: float | None) -> str:
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def curve_table(points: dict[tuple[int, str], CurvePoint], sizes: Sequence[int]) -> str:
    """A row a model, a column a size: the distance to Bayes, its deviation where there are seeds."""

    def text(point: CurvePoint | None) -> str:
        return "-" if point is None else _with_deviation(point.distance, point.deviation)

    rows = [
        [name, *(text(points.get((size, name))) for size in sizes)]
        for name in (*BASELINES, *NETWORKS)
    ]
    return table(["Bayes AUC - AUC", *(f"{size:,} rows" for size in sizes)], rows, "Learning curve")


def middle_table(points: dict[tuple[int, str], CurvePoint], middle: int) -> str:
    """One size, which has points: AUC, share of the linear gap that is closed, against LightGBM."""
    rows = []
    for name in (*BASELINES, *NETWORKS):
        point = points.get((middle, name))
        if point is None:
            continue
        share, against = gap_closed(points, middle, name), point.against_lightgbm
        rows.append(
            [
                name,
                f"{point.auc:.4f}",
                "-" if share is None else f"{share:.0%}",
                "-" if against is None else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*against),
                point.seeds,
            ]
        )
    header = ["model", "AUC", "linear gap closed", "AUC - LightGBM [95 %]", "seeds"]
    bayes = next(point.bayes_auc for (size, _), point in points.items() if size == middle)
    return table(header, rows, f"{middle:,} rows; Bayes AUC {bayes:.4f}")


def norms_table(distances: Mapping[tuple[str, str], Sequence[float]], rows: int) -> str:
    """A row a network, a column a normalization: mean distance to Bayes, deviation over the seeds."""

    def text(values: Sequence[float]) -> str:
        if not values:
            return "-"
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return _with_deviation(float(np.mean(values)), deviation)

    networks = list(dict.fromkeys(model for model, _ in distances))
    lines = [
        [name, *(text(distances.get((name, norm), ())) for norm in NORMS)] for name in networks
    ]
    whole = ["mean of them"]
    for norm in NORMS:
        means = [np.mean(distances[name, norm]) for name in networks if (name, norm) in distances]
        whole.append(f"{np.mean(means):.4f}" if means and len(means) == len(networks) else "-")
    counts = sorted({len(seeds) for seeds in distances.values()}) or [0]
    title = f"Normalizations, {rows:,} rows, seeds: {' or '.join(map(str, counts))}"
    return table(["Bayes AUC - AUC", *NORMS], [*lines, whole], title)


def calibration_table(results: Sequence[Result]) -> str:
    """Mean prediction over mean truth, and the calibration error, at three stages."""
    rows = []
    for result in results:
        cell = result["cell"]
        stages = [result[stage] for stage in ("raw", "corrected", "calibrated")]
        rows.append(
            [
                f"{cell['loss']}, keep {cell['log']['negative_keep_rate']:g}",
                *(f"{stage['prediction_over_truth']:.4f}" for stage in stages),
                *(f"{stage['calibration_error']:.5f}" for stage in stages),
                f"{result['distance']:.4f}",
            ]
        )
    header = ["loss, negatives", "ratio raw", "exact", "fitted"]
    header += ["error raw", "exact", "fitted", "distance"]
    title = (
        "Prediction over true probability, error in 20 equal-mass bins: raw, after the loss's exact "
        "correction, after the residual calibrator"
    )
    return table(header, rows, title)


def bars_table(bars: Sequence[Bar]) -> str:
    """Pass, FAIL or not measured."""
    words = {True: "pass", False: "FAIL", None: "not measured"}
    rows = [[words[bar.holds], bar.rule, bar.measured] for bar in bars]
    return table(["bar", "rule", "measured"], rows)
