"""The two tables as one picture: learning curves to the left, calibration to the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.bars import CurvePoint, Result
from benchmarks.quality.plan import BASELINES, NETWORKS

__all__ = ["draw"]

_STAGES = {
    "raw": ("trained", "#d1495b"),
    "corrected": ("the loss's exact correction", "#e8a5ae"),
    "calibrated": ("and the residual calibrator", "#1f77b4"),
}


def draw(
    points: Mapping[tuple[int, str], CurvePoint],
    calibration: Sequence[Result],
    path: Path,
) -> None:
    """Writes a PNG.

    Args:
        points: by (rows, model).
        calibration: results of calibration cells.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    _curves(left, points)
    _calibration(right, calibration)
    for axis in (left, right):
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)


def _curves(axis: Any, points: Mapping[tuple[int, str], CurvePoint]) -> None:
    for name in (*NETWORKS, *BASELINES):
        rows = sorted(size for size, model in points if model == name)
        if not rows:
            continue
        style: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.5}
        if name in BASELINES:
            style |= {"color": "#444", "linestyle": "--" if name == BASELINES[0] else ":"}
        distances = [points[size, name].distance for size in rows]
        errors = [points[size, name].deviation or 0.0 for size in rows]
        axis.errorbar(rows, distances, errors, label=name.replace("_", " "), **style)
    sizes = sorted({size for size, _ in points})
    axis.set(xscale="log", xlabel="rows of the log", ylabel="Bayes AUC - test AUC", ylim=(0, None))
    axis.set_xticks(sizes, [f"{size / 1e6:g} M" for size in sizes])
    axis.minorticks_off()
    axis.grid(alpha=0.25)
    axis.set_title("distance to the truth", fontsize=11)
    if points:
        axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")


def _calibration(axis: Any, results: Sequence[Result]) -> None:
    names = [
        f"{r['cell']['loss']}\nnegatives kept: {r['cell']['log']['negative_keep_rate']:.0%}"
        for r in results
    ]
    for stage, (label, colour) in _STAGES.items():
        ratios = [r[stage]["prediction_over_truth"] for r in results]
        axis.plot(ratios, range(len(results)), "o", color=colour, label=label, markersize=7)
    axis.axvline(1.0, color="#333", linewidth=1)
    axis.set_xscale("log")
    ticks = [0.8, 1, 2, 5, 10, 20]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("mean prediction / mean true probability")
    axis.grid(alpha=0.25)
    axis.set_title("calibration under every loss", fontsize=11)
    if results:
        axis.legend(
            frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.13)
        )
