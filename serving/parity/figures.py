"""The pictures of parity.html, from the numbers of parity.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.parity.outcome import ParityReport

__all__ = ["composition_figure", "gap_figure", "health_figure", "metric_figure"]

_COLOURS = {"layer": "#1f77b4", "batch": "#d1495b", "none": "#7a8793"}
_FADED = "#e8a5ae"
_FLOOR = 1e-8  # what is smaller is drawn there: the axes are logarithmic
_SHADES = {"as trained": _COLOURS["batch"], "re-estimated": _FADED}
_SIZES = {"as trained": "moving statistics as trained", "re-estimated": "statistics re-estimated"}


def _by_number(values: Mapping[str, Any]) -> dict[str, Any]:
    """By rising key: parity.json is sorted as text, and a line would run to and fro."""
    return {key: values[key] for key in sorted(values, key=float)}


def gap_figure(reports: Sequence[ParityReport]) -> Any:
    """Largest difference of logits against batch size, one line a run, both modes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name, title in (
        (axes[0], "batch, served", "served (inference mode)"),
        (axes[1], "batch, trained", "as trained (training mode, weights frozen)"),
    ):
        for report in reports:
            by_size = _by_number(report.details(name)["by_batch_size"])
            sizes = [int(s) for s in by_size]
            values = [max(float(v), _FLOOR) for v in by_size.values()]  # "inf" is text
            colour = _COLOURS.get(report.norm)
            axis.plot(sizes, values, "o-", label=f"{report.norm} norm", color=colour)
        _bar(axis)
        axis.set(xscale="log", yscale="log", title=title, xlabel="batch size")
        ticks = [1, 2, 7, 64, 512, 1000]
        axis.set_xticks(ticks, [str(t) for t in ticks], fontsize=8)
        axis.minorticks_off()
        _show_each_line(axis)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("largest |difference of logits|")
    axes[0].legend(frameon=False)
    return figure


def composition_figure(report: ParityReport, others: Sequence[ParityReport] = ()) -> Any:
    """The sweep of a model with batch statistics: by batch size, by composition, by base rate.

    Args:
        report: with the check `batch, composition`.
        others: reports beside it; one that holds the bar of `batch, trained` is drawn as its gap,
            which is what it is in any batch.
    """
    from matplotlib.figure import Figure

    details = report.details("batch, composition")
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    by_size, by_composition, by_rate = figure.subplots(1, 3, width_ratios=(1, 1.15, 1))
    _by_size_panel(by_size, details)
    _composition_panel(by_composition, details)
    _base_rate_panel(by_rate, details)
    for other in others:
        gap = other.check("batch, trained")
        if gap is not None and gap.passed:
            value = max(gap.value, _FLOOR)
            style = {"color": _COLOURS.get(other.norm), "linewidth": 2}
            by_size.axhline(value, label=f"{other.norm} norm, any batch", **style)
            by_composition.axvline(value, **style)
            by_rate.axhline(0.0, **style)
    by_size.legend(frameon=False, fontsize=7, loc="center left", handlelength=1.2)
    for axis in (by_size, by_composition, by_rate):
        axis.minorticks_off()
        axis.grid(alpha=0.25)
    return figure


def _by_size_panel(axis: Any, details: Mapping[str, Any]) -> None:
    sizes = _by_number(details["by_batch_size"])
    for series, colour in _SHADES.items():
        values = [max(v[series]["largest"], _FLOOR) for v in sizes.values()]
        label = f"batch norm, {_SIZES[series]}"
        axis.plot([int(s) for s in sizes], values, "o-", color=colour, label=label)
    _show_each_line(axis)
    _bar(axis)
    axis.set(xscale="log", yscale="log", xlabel="batch size, random rows")
    axis.set(ylabel="|trained - served|, logits, largest", title="how many others")


def _composition_panel(axis: Any, details: Mapping[str, Any]) -> None:
    found = details["by_composition"]
    for (series, colour), offset in zip(_SHADES.items(), (-0.2, 0.2), strict=True):
        places = [place + offset for place in range(len(found))]
        axis.barh(places, [v[series]["mean"] for v in found.values()], height=0.36, color=colour)
    axis.set_yticks(range(len(found)), list(found), fontsize=8)
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="|trained - served|, logits, mean")
    axis.set(title=f"who the others are (batch {details['batch_size']})")


def _base_rate_panel(axis: Any, details: Mapping[str, Any]) -> None:
    rates = _by_number(details["by_base_rate_factor"])
    for series, colour in _SHADES.items():
        shifts = [v[series]["shift"] for v in rates.values()]
        axis.plot([float(f) for f in rates], shifts, "o-", color=colour)
    _show_each_line(axis)
    axis.axhline(0.0, color="#333", linewidth=0.8)
    axis.set_xscale("log", base=2)
    axis.set_xticks([0.25, 0.5, 1, 2, 4], ["x0.25", "x0.5", "x1", "x2", "x4"])
    axis.set(xlabel="base rate of the batch", ylabel="mean of trained - served, logits")
    axis.set(title="how many of them click")


def health_figure(report: ParityReport) -> Any:
    """Per norm layer, how far the moving statistics are from the hold-out's."""
    from matplotlib.figure import Figure

    layers = report.details("norm health")["layers"]
    figure = Figure(figsize=(9, 1.4 + 0.32 * len(layers)), layout="constrained")
    shift, ratio = figure.subplots(1, 2, sharey=True)
    places = list(range(len(layers)))
    shift.barh(places, [v["mean_shift_largest"] for v in layers.values()], color=_FADED)
    shift.barh(places, [v["mean_shift_rms"] for v in layers.values()], color=_COLOURS["batch"])
    shift.set_yticks(places, list(layers))
    shift.invert_yaxis()
    shift.set(xlabel="in moving deviations: root mean square, and largest unit")
    shift.set(title="mean: hold-out against moving")
    low = [v["deviation_ratio_lowest"] for v in layers.values()]
    high = [v["deviation_ratio_highest"] for v in layers.values()]
    ratio.hlines(places, low, high, color=_COLOURS["batch"], linewidth=6)
    ratio.axvline(1.0, color="#333", linewidth=0.8)
    ratio.set(xlabel="hold-out's over moving, lowest to highest unit", title="standard deviation")
    for axis in (shift, ratio):
        axis.grid(alpha=0.25)
    return figure


def metric_figure(report: ParityReport) -> Any:
    """The paired differences with their intervals; a panel a metric, 0 marked."""
    from matplotlib.figure import Figure

    found = report.details("metric")["differences"]
    names = ("auc", "log_loss", "calibration_ratio")
    figure = Figure(figsize=(9, 1.5), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names)), names, strict=True):
        low, middle, high = (float(found[name][key]) for key in ("low", "estimate", "high"))
        axis.errorbar([middle], [0], xerr=[[middle - low], [high - middle]], fmt="o", capsize=4)
        axis.axvline(0.0, color="#333", linewidth=0.8)
        axis.set(title=f"difference in {name.replace('_', ' ')}", yticks=[])
        axis.locator_params(axis="x", nbins=4)
        axis.tick_params(axis="x", labelsize=8)
    return figure


def _show_each_line(axis: Any) -> None:
    """Makes a dotted line wider than those drawn over it: where they coincide, each is seen."""
    lines = [line for line in axis.get_lines() if line.get_marker() == "o"]
    for above, line in enumerate(reversed(lines)):
        line.set(linewidth=1.5 + 2.0 * above, markersize=5.0 + 4.0 * above)


def _bar(axis: Any) -> None:
    axis.axhline(1e-5, color="#333", linestyle="--", linewidth=1)
    axis.text(
        0.98,
        1.3e-5,
        "bar 1e-5",
        ha="right",
        va="bottom",
        fontsize=8,
        transform=axis.get_yaxis_transform(),
    )
