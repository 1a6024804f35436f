"""parity.html: the verdict as a page with pictures, self-contained."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["figure_to_html", "page", "write_report"]

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
_COLOURS = {"layer": "#1f77b4", "batch": "#d1495b", "none": "#7a8793"}


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


def write_report(path: Path, reports: Sequence[dict[str, Any]]) -> None:
    """Writes the page for one run, or for several beside each other."""
    body = figure_to_html(gap_figure(reports), "difference of logits by batch size")
    body += "".join(_section(report) for report in reports)
    names = " and ".join(f"{r['model']}, {r['norm']} norm" for r in reports)
    path.write_text(page("Parity", f"{names}: does it score in production as in training?", body))


def gap_figure(reports: Sequence[dict[str, Any]]) -> Any:
    """Largest difference of logits against batch size, one line a run, both modes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    floor = 1e-8
    for axis, name, title in (
        (axes[0], "batch, served", "served (inference mode)"),
        (axes[1], "batch, trained", "as trained (training mode, weights frozen)"),
    ):
        for report in reports:
            check = next(c for c in report["checks"] if c["name"] == name)
            by_size = check["details"]["by_batch_size"]
            sizes = [int(s) for s in by_size]
            values = [max(v, floor) for v in by_size.values()]
            colour = _COLOURS.get(report["norm"])
            axis.plot(sizes, values, "o-", label=f"{report['norm']} norm", color=colour)
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
        axis.set(xscale="log", yscale="log", title=title, xlabel="batch size")
        axis.set_xticks([1, 2, 7, 64, 512], ["1", "2", "7", "64", "512"])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("largest |difference of logits|")
    axes[0].legend(frameon=False)
    return figure


def _section(report: dict[str, Any]) -> str:
    verdict = "passes every bar" if report["passed"] else "fails a bar"
    style = "ok" if report["passed"] else "no"
    rows = "".join(_row(check) for check in report["checks"])
    note = ""
    if report["has_batch_statistics"]:
        note = (
            "<p>This model keeps batch statistics: what it learned from is not what it serves. "
            "<code>clickparity export</code> refuses it unless the config accepts the gap in numbers.</p>"
        )
    return (
        f"<h2>{html.escape(report['model'])}, {html.escape(report['norm'])} norm: "
        f"<span class='{style}'>{verdict}</span></h2>"
        f"<p class='sub'>run {report['run']}, export {report['export_digest'][:16]}</p>{note}"
        "<table><tr><th>check</th><th>what is compared</th><th>largest difference</th><th>bar</th>"
        f"<th></th></tr>{rows}</table>"
    )


def _row(check: dict[str, Any]) -> str:
    verdict = {
        True: "<span class='ok'>holds</span>",
        False: "<span class='no'>fails</span>",
        None: "<span class='info'>reported</span>",
    }[check["passed"]]
    value = check["value"] if isinstance(check["value"], str) else f"{check['value']:.3g}"
    bar = "" if check["bar"] is None else f"{check['bar']:.0e}" if check["bar"] else "0"
    return (
        f"<tr><td>{html.escape(check['name'])}</td><td>{html.escape(check['says'])}</td>"
        f"<td class='n'>{value}</td><td class='n'>{bar}</td><td>{verdict}</td></tr>"
    )
