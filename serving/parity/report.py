"""parity.html: the verdict as a page with pictures, self-contained."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.parity.figures import (
    composition_figure,
    gap_figure,
    health_figure,
    metric_figure,
)
from serving.parity.outcome import Check, ParityReport

__all__ = ["figure_to_html", "gap_figure", "page", "write_report"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; max-width: 62rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid #dfe5ec; vertical-align: top; }
th { font-weight: 600; background: #f4f7fa; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
.ok { color: #14713d; font-weight: 600; } .no { color: #b3261e; font-weight: 600; } .info { color: #5b6b7c; }
img { max-width: 100%; } p.sub { color: #5b6b7c; margin-top: .2rem; }
"""


def page(title: str, subtitle: str, body: str) -> str:
    """A whole HTML page."""
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}"
        f"</title><style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
        f"<p class='sub'>{html.escape(subtitle)}</p>{body}</body></html>\n"
    )


def figure_to_html(figure: Any, description: str) -> str:
    """A matplotlib figure as an inline image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{html.escape(description)}' src='data:image/png;base64,{data}'>"


def write_report(path: Path, reports: Sequence[ParityReport]) -> None:
    """Writes the page for one run, or for several beside each other."""
    body = _pictures(reports)
    body += "".join(_section(report) for report in reports)
    names = " and ".join(f"{r.model}, {r.norm} norm" for r in reports)
    path.write_text(page("Parity", f"{names}: does it score in production as in training?", body))


def _pictures(reports: Sequence[ParityReport]) -> str:
    """The figures that these reports have numbers for, each with a line of what it shows."""
    parts = [figure_to_html(gap_figure(reports), "difference of logits by batch size")]
    for report in reports:
        if report.check("metric"):
            parts.append("<h2>Which model is better on held-out rows</h2>")
            parts.append(figure_to_html(metric_figure(report), "paired differences"))
            parts.append(_metric_words(report))
        if report.check("batch, composition"):
            others = [r for r in reports if r is not report]
            title = f"{report.model}, {report.norm} norm: how the batch composition changes a score"
            parts.append(
                f"<h2>{html.escape(title)}</h2><p>The same row, the same weights, training"
                " mode against served: what the model learned from is not what it serves."
                "</p>"
            )
            parts.append(
                figure_to_html(composition_figure(report, others), "the gap by batch composition")
            )
        if report.check("norm health"):
            parts.append("<h2>Health of the moving statistics</h2>")
            parts.append(figure_to_html(health_figure(report), "moving statistics by layer"))
            parts.append(_gain_words(report))
    return "".join(parts)


def _metric_words(report: ParityReport) -> str:
    details = report.details("metric")
    words = [
        f"{name.replace('_', ' ')} {_interval(details['differences'][name])}"
        + ("" if details["differs"].get(name) else " (no difference shown)")
        for name in ("auc", "log_loss", "calibration_ratio")
    ]
    return (
        f"<p>{html.escape(report.norm)} norm minus {html.escape(details['against']['name'])}, "
        f"{details['rows']:,} test rows, paired, 95 %: {html.escape('; '.join(words))}.</p>"
    )


def _gain_words(report: ParityReport) -> str:
    details = report.details("norm health")
    gain = details["reestimated_minus_as_trained"]
    return (
        f"<p>Re-estimated on {int(details['batches'])} training batches, the hold-out's log loss "
        f"changes by {_interval(gain['log_loss'])} and its AUC by {_interval(gain['auc'])} "
        f"(95 %); no logit by more than {float(gain['largest_logit_change']):.3g}.</p>"
    )


def _interval(found: dict[str, Any]) -> str:
    low, middle, high = (float(found[key]) for key in ("low", "estimate", "high"))
    return f"{middle:+.5f} ({low:+.5f} to {high:+.5f})"


def _section(report: ParityReport) -> str:
    verdict = "passes every bar" if report.passed else "fails a bar"
    style = "ok" if report.passed else "no"
    rows = "".join(_row(check) for check in report.checks)
    note = ""
    if report.has_batch_statistics:
        note = (
            "<p>This model keeps batch statistics: what it learned from is not what it serves. "
            "<code>clickparity export</code> refuses it unless the config accepts the gap in numbers.</p>"
        )
    return (
        f"<h2>{html.escape(report.model)}, {html.escape(report.norm)} norm: "
        f"<span class='{style}'>{verdict}</span></h2>"
        f"<p class='sub'>run {html.escape(report.run)}, export "
        f"{html.escape(report.export_digest[:16])}</p>{note}"
        "<table><tr><th>check</th><th>what is compared</th><th>largest difference</th><th>bar</th>"
        f"<th></th></tr>{rows}</table>"
    )


def _row(check: Check) -> str:
    verdict = {
        True: "<span class='ok'>holds</span>",
        False: "<span class='no'>fails</span>",
        None: "<span class='info'>reported</span>",
    }[check.passed]
    bar = "" if check.bar is None else f"{check.bar:.0e}" if check.bar else "0"
    return (
        f"<tr><td>{html.escape(check.name)}</td><td>{html.escape(check.says)}</td>"
        f"<td class='n'>{check.value:.3g}</td><td class='n'>{bar}</td><td>{verdict}</td></tr>"
    )
