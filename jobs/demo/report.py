"""demo_out/report.html: what the demo measured, in pictures."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluation import Evaluation
from models.trained_run import TrainedRun
from pipeline.records.data_directory import DataDirectory
from serving.parity.outcome import ParityReport
from serving.parity.report import figure_to_html, gap_figure, page

__all__ = ["write_demo_report"]

_COLOUR = {"layer": "#1f77b4", "batch": "#d1495b"}


def write_demo_report(
    path: Path,
    data: DataDirectory,
    runs: dict[str, TrainedRun],
    metrics: dict[str, Evaluation],
    parities: dict[str, ParityReport],
    asked: dict[str, Any],
    refusal: str,
) -> Path:
    """Writes the page; self-contained."""
    body = [
        "<h2>1. How good, against the best possible</h2>",
        "<p>The log is generated, so the true click probability of every row is known: the dashed "
        "line is the AUC of that truth, which no model can beat.</p>",
        figure_to_html(_quality_figure(metrics), "AUC and training history"),
        "<h2>2. Are the probabilities right</h2>",
        figure_to_html(_calibration_figure(data, runs), "predicted against true probability"),
        "<h2>3. Does it score in production as in training</h2>",
        "<p>Left: served in inference mode, a row alone against the same row inside a batch. Right: in "
        "the mode that the weights were trained in, against the logit that is served. Layer norm stays "
        "at rounding error; batch norm ties a score to its neighbours.</p>",
        figure_to_html(gap_figure(list(parities.values())), "difference of logits by batch size"),
        f"<p><b>The gate:</b> {html.escape(refusal)}</p>",
        "<h2>4. Ten raw rows, asked of the server</h2>",
        _asked_table(asked),
        "<h2>5. The rows</h2>",
        _summary(data),
    ]
    text = page(
        "clickparity demo", "DCN-v2 with layer norm and with batch norm, same rows", "".join(body)
    )
    path.write_text(text)
    return path


def _quality_figure(metrics: dict[str, Evaluation]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axis = figure.subplots()
    names = list(metrics)
    for i, norm in enumerate(names):
        m = metrics[norm]
        auc, low, high = (value or 0.5 for value in (m.auc, m.auc_low, m.auc_high))
        error = [[auc - low], [high - auc]]
        axis.barh(i, auc - 0.5, left=0.5, xerr=error, color=_COLOUR[norm], height=0.55, capsize=4)
        axis.text(0.505, i, f"{norm} norm  {auc:.4f}", va="center", color="white", fontsize=10)
    truth = metrics[names[0]].truth
    bayes = truth.bayes_auc if truth and truth.bayes_auc else 0.5
    axis.axvline(bayes, color="#333", linestyle="--")
    axis.text(bayes, len(names) - 0.45, f" truth {bayes:.4f}", ha="left", va="bottom", fontsize=9)
    axis.set(
        xlabel="AUC on the test split (95 % interval)",
        yticks=[],
        xlim=(0.5, max(0.9, bayes + 0.06)),
    )
    axis.set_ylim(-0.6, len(names) - 0.1)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    return figure


def _calibration_figure(data: DataDirectory, runs: dict[str, TrainedRun]) -> Any:
    """Mean true probability against mean prediction in twenty bins of equal mass."""
    from matplotlib.figure import Figure

    from models.training.scoring import score_split

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for norm, run in runs.items():
        scored = score_split(run.model, data, "test")
        logit = np.asarray(run.calibration.logits(scored.logit)).astype(np.float64)
        predicted, truth = 1 / (1 + np.exp(-logit)), scored.carry[:, 0].astype(np.float64)
        bins = np.array_split(np.argsort(predicted, kind="stable"), 20)
        x = [predicted[b].mean() for b in bins]
        y = [truth[b].mean() for b in bins]
        left.plot(x, y, "o-", color=_COLOUR[norm], label=f"{norm} norm", markersize=4)
        right.hist(np.log10(predicted), bins=60, histtype="step", color=_COLOUR[norm], density=True)
    right.hist(np.log10(truth), bins=60, histtype="step", color="#999", density=True, label="truth")
    low, high = min(left.get_xlim()[0], 1e-3), max(left.get_xlim()[1], left.get_ylim()[1])
    left.plot([1e-3, high], [1e-3, high], "--", color="#333", linewidth=1)
    left.set(xscale="log", yscale="log", xlabel="mean prediction", ylabel="mean true probability")
    left.set_title("calibration against the truth", fontsize=11)
    left.set_xlim(max(low, 8e-4), high)
    left.legend(frameon=False)
    right.set(xlabel="log10 probability", yticks=[])
    right.set_title("how predictions spread (grey: the truth)", fontsize=11)
    for axis in (left, right):
        axis.grid(alpha=0.25)
    return figure


def _asked_table(asked: dict[str, Any]) -> str:
    head = "<tr><th>row</th><th>at training time</th><th>gRPC</th><th>REST</th><th>truth</th></tr>"
    rows = ""
    for i in range(len(asked["trained"])):
        cells = "".join(
            f"<td class='n'>{asked[c][i]:.7f}</td>"
            for c in ("trained", "grpc", "rest", "true_probability")
        )
        rows += f"<tr><td>{i + 1}</td>{cells}</tr>"
    gap = asked["largest_difference"]
    return f"<table>{head}{rows}</table><p class='sub'>largest difference of logits: {gap:.2g} (bar 1e-5)</p>"


def _summary(data: DataDirectory) -> str:
    summary = data.summary
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td class='n'>{s['rows']:,}</td>"
        f"<td class='n'>{s['label_rate']:.3%}</td></tr>"
        for name, s in summary["splits"].items()
    )
    return (
        f"<table><tr><th>split</th><th>rows</th><th>label rate</th></tr>{rows}</table>"
        f"<p class='sub'>{summary['input_rows']:,} input rows: {summary['sum_of_parts']:,} accounted for, "
        f"{summary['rejected_rows']} rejected, {summary['dropped_by_sampling']} dropped by sampling</p>"
    )
