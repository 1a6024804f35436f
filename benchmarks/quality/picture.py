"""The three tables as one picture: learning curves, normalizations and, below, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.bars import CurvePoint, Result
from benchmarks.quality.plan import BASELINES, NETWORKS, NORMS

__all__ = ["draw"]

# Label, colour and marker; from a large ring to a small dot, so that each is seen where they agree.
_STAGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "raw": ("trained", "#d1495b", {"markersize": 12, "markerfacecolor": "none"}),
    "corrected": ("the loss's exact correction", "#2a9d8f", {"markersize": 8}),
    "calibrated": ("and the residual calibrator", "#1f77b4", {"markersize": 4.5}),
}
_DASHES: tuple[Any, ...] = ("-", (0, (6, 5)), (0, (1.5, 3)))
_MARKERS = "os^Dv<>P"  # of the networks, whose curves cross and touch

_NORM_STEP = 0.17  # of a network's row
_NORM_COLOURS = dict(zip(NORMS, ("#333333", "#1f77b4", "#2a9d8f", "#d1495b"), strict=True))


def draw(
    points: Mapping[tuple[int, str], CurvePoint],
    distances: Mapping[tuple[str, str], Sequence[float]],
    calibration: Sequence[Result],
    path: Path,
) -> None:
    """Writes a PNG.

    Args:
        points: by (rows, model).
        distances: of the seeds, by (model, norm).
        calibration: results of calibration cells.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplot_mosaic(
        [["curves", "norms"], ["calibration", "calibration"]], height_ratios=[1.15, 1]
    )
    _curves(axes["curves"], points)
    _norms(axes["norms"], distances)
    _calibration(axes["calibration"], calibration)
    for axis in axes.values():
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)


def _curves(axis: Any, points: Mapping[tuple[int, str], CurvePoint]) -> None:
    for i, name in enumerate((*NETWORKS, *BASELINES)):
        rows = sorted(size for size, model in points if model == name)
        if not rows:
            continue
        style: dict[str, Any] = {"marker": _MARKERS[i % len(_MARKERS)], "markerfacecolor": "none"}
        # Dashed over solid and dotted over dashed: each is seen where curves coincide.
        style |= {"linestyle": _DASHES[i % 3], "zorder": 2 + i % 3, "markersize": 6}
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
        _legend_below(axis, columns=4)


def _norms(axis: Any, distances: Mapping[tuple[str, str], Sequence[float]]) -> None:
    networks = list(dict.fromkeys(model for model, _ in distances))
    for i, (norm, colour) in enumerate(_NORM_COLOURS.items()):
        label: str | None = norm.replace("_", " ")
        for row, name in enumerate(networks):
            seeds = distances.get((name, norm))
            if not seeds:
                continue
            y = row + (i - (len(NORMS) - 1) / 2) * _NORM_STEP
            axis.plot(seeds, [y] * len(seeds), "o-", color=colour, markersize=3, linewidth=1)
            mean = sum(seeds) / len(seeds)
            axis.plot(mean, y, "|", color=colour, markersize=11, markeredgewidth=2, label=label)
            label = None  # once in the legend
    for row in range(1, len(networks)):
        axis.axhline(row - 0.5, color="#eee", linewidth=0.8)
    axis.set_yticks(range(len(networks)), [n.replace("_", " ") for n in networks], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("Bayes AUC - test AUC, seeds and their mean")
    axis.grid(alpha=0.25, axis="x")
    axis.set_title("normalization of the hidden layers", fontsize=11)
    if distances:
        _legend_below(axis, columns=4)


def _calibration(axis: Any, results: Sequence[Result]) -> None:
    names = [
        f"{r['cell']['loss']}\nnegatives kept: {r['cell']['log']['negative_keep_rate']:.0%}"
        for r in results
    ]
    for stage, (label, colour, style) in _STAGES.items():
        ratios = [r[stage]["prediction_over_truth"] for r in results]
        axis.plot(ratios, range(len(results)), "o", color=colour, label=label, **style)
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
        _legend_below(axis, columns=3)


def _legend_below(axis: Any, columns: int) -> None:
    place = {"loc": "upper center", "bbox_to_anchor": (0.45, -0.13)}
    axis.legend(frameon=False, fontsize=8, ncols=columns, **place)
