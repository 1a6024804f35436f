"""Metrics and parity checks as tables."""

from __future__ import annotations

from typing import Any

from jobs.show.tables import number, table

__all__ = ["metrics_table", "parity_table", "run_text", "segment_table"]


def metrics_table(metrics: dict[str, Any], title: str) -> str:
    """Calibrated and raw figures side by side, and the best possible where it is known."""
    names = (
        "auc",
        "average_precision",
        "log_loss",
        "normalized_entropy",
        "calibration_ratio",
        "expected_calibration_error",
        "toss_metric",
    )
    rows = [[n.replace("_", " "), metrics[n], metrics["raw"][n]] for n in names]
    rows.insert(
        1,
        [
            "auc, 95 % interval",
            f"{metrics['auc_low'] or 0:.4f} .. {metrics['auc_high'] or 0:.4f}",
            "",
        ],
    )
    for name, value in metrics.get("truth", {}).items():
        rows.append([name.replace("_", " "), value, ""])
    rows.append(["rows", int(metrics["count"]), ""])
    return table(["metric", "calibrated", "raw"], rows, title=title)


def segment_table(name: str, values: dict[str, Any]) -> str:
    """One line a value of a column, the most frequent first; --json has every metric."""
    lines = [
        [
            value,
            int(found["count"]),
            int(found["clicks"]),
            _with_interval(found, "auc"),
            number(found["log_loss"]),
            _with_interval(found, "calibration_ratio"),
        ]
        for value, found in values.items()
    ]
    header = [name, "rows", "clicks", "AUC", "log loss", "calibration ratio"]
    return table(header, lines, title=f"by {name}, calibrated, with 95 % intervals")


def _with_interval(found: dict[str, Any], metric: str) -> str:
    ends = [number(found.get(f"{metric}_{end}")) for end in ("low", "high")]
    return f"{number(found[metric])} [{ends[0]}, {ends[1]}]"


def parity_table(report: dict[str, Any], title: str) -> str:
    """The checks, one a line."""
    words = {True: "holds", False: "FAILS", None: "reported"}
    rows = []
    for check in report["checks"]:
        bar = "" if check["bar"] is None else f"{check['bar']:.0e}" if check["bar"] else "0"
        value = check["value"] if isinstance(check["value"], str) else f"{check['value']:.3g}"
        rows.append([check["name"], value, bar, words[check["passed"]]])
    return table(["parity check", "largest difference", "bar", ""], rows, title=title)


def run_text(result: dict[str, Any]) -> str:
    """What `clickparity run` came to."""
    published = result["published"]
    if result["nothing_to_do"]:
        return (
            f"nothing to do: run {result['run_id']} is finished, "
            f"published as version {published['version']} of {published['name']}"
        )
    metrics = result["metrics"]
    rows = [[n.replace("_", " "), metrics[n]] for n in ("auc", "log_loss", "calibration_ratio")]
    rows += [[f"parity: {name}", value] for name, value in result["parity"].items()]
    return table(["", "test split"], rows, title=result["run"]) + "\n" + published["message"]
