"""Every metric of one model on one set of rows, overall and per value of a segment column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from models.metrics.calibration_interval import calibration_interval
from models.metrics.checked_arrays import Array, checked_rows, ratio
from models.metrics.intervals import auc_interval, bootstrap_intervals
from models.metrics.probability import (
    calibration_ratio,
    expected_calibration_error,
    log_loss,
    normalized_entropy,
    toss_from,
    weighted_log_loss,
)
from models.metrics.ranking import auc, average_precision
from models.metrics.ranking_intervals import ranking_intervals
from pipeline.errors import ConfigError, DataError

__all__ = ["MISSING", "REST", "evaluate"]

MISSING = "(missing)"
REST = "(rest)"


def evaluate(
    label: ArrayLike,
    logits: ArrayLike,
    weight: ArrayLike | None = None,
    segments: Mapping[str, np.ndarray] | None = None,
    *,
    top_k: int = 20,
    num_bins: int = 20,
    num_replicates: int = 0,
    clusters: ArrayLike | None = None,
) -> dict[str, Any]:
    """All metrics, overall and per segment.

    Args:
        label: 0 or 1, [rows].
        logits: calibrated or not, [rows].
        weight: not negative, [rows]; 1 when None.
        segments: columns to split by, each [rows]: text, bytes, numbers; None and NaN are a value.
        top_k: values of a segment reported by themselves, the most frequent first (ties by name);
            the rows of all others are reported together as "(rest)".
        num_bins: of the expected calibration error.
        num_replicates: of the bootstrap behind `<metric>_low` and `<metric>_high` of
            average_precision, toss_metric, log_loss, normalized_entropy and calibration_ratio; 0:
            without these. The expected calibration error has none: a replicate's is larger than the
            rows' own by the noise of the drawing, so its percentiles would miss the truth.
        clusters: of rows that hang together, an hour or a day, [rows]: the interval of the calibration
            ratio is then over them (`calibration_interval`).

    Returns:
        {"overall": metrics, "segments": {column: {value: metrics}}}, where metrics holds count
        (rows), clicks (their weight), mean_label, mean_probability, auc with auc_low and auc_high
        (DeLong, 95 %), average_precision, toss_metric, log_loss, normalized_entropy,
        calibration_ratio, expected_calibration_error, and, where some are NaN, "undefined" with the
        reason.

    Raises:
        DataError: impossible label, logit or weight, or a segment of another shape.
        ConfigError: top_k or num_bins is not positive.
    """
    if top_k < 1:
        raise ConfigError("top_k must be positive", top_k, "Try 20.")
    labels, z, weights = checked_rows(label, logits, weight)
    groups = np.zeros((len(labels), 0)) if clusters is None else np.asarray(clusters)
    if clusters is not None and groups.shape != labels.shape:
        raise DataError(
            f"clusters must have the shape [{len(labels)}] of the labels",
            list(groups.shape),
            "Give one cluster per row.",
        )

    def of(rows: Any) -> dict[str, Any]:
        chosen = labels[rows], z[rows], weights[rows], groups[rows]
        return _metrics(*chosen, num_bins, num_replicates)

    by_column = {
        name: {value: of(rows) for value, rows in _values(name, column, len(labels), top_k)}
        for name, column in (segments or {}).items()
    }
    return {"overall": of(slice(None)), "segments": by_column}


def _values(
    name: str, column: np.ndarray, num_rows: int, top_k: int
) -> Iterator[tuple[str, np.ndarray]]:
    """(value, whether a row has it) of the most frequent values, then all others as `REST`."""
    if np.shape(column) != (num_rows,):
        raise DataError(
            f"segment {name} must have the shape [{num_rows}] of the labels",
            list(np.shape(column)),
            "Segment by a column with one value per row.",
        )
    names, codes = _encode(column)
    counts = np.bincount(codes, minlength=len(names))
    order = list(np.argsort(-counts, kind="stable"))  # names are sorted: ties go by name
    for code in order[:top_k]:
        yield names[code], codes == code
    if len(order) > top_k:
        yield REST, np.isin(codes, order[top_k:])


def _encode(column: np.ndarray) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the distinct values, and each row's index into them."""
    encoded = pa.array(column, from_pandas=True).dictionary_encode(null_encoding="encode")
    names = []
    for value in encoded.dictionary.to_pylist():
        if isinstance(value, bytes):
            names.append(value.decode("utf-8", errors="replace"))
        else:
            names.append(MISSING if value is None else str(value))
    # Two values may share a name (None and the text "(missing)"): then they are one segment.
    distinct, code_of = np.unique(np.array(names, dtype=object), return_inverse=True)
    codes = code_of[encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)]
    return [str(name) for name in distinct], codes.astype(np.int64)


def _metrics(
    labels: Array,
    z: Array,
    weights: Array,
    clusters: NDArray[Any],
    num_bins: int,
    num_replicates: int,
) -> dict[str, Any]:
    interval = auc_interval(labels, z, weights)
    precision = average_precision(labels, z, weights)
    wll = weighted_log_loss(labels, logits=z, weight=weights)
    clicks, total = float(np.dot(labels, weights)), float(weights.sum())
    calibration = calibration_ratio(labels, logits=z, weight=weights)
    mean_label = ratio(clicks, total)
    result: dict[str, Any] = {
        "count": len(labels),
        "clicks": clicks,
        "mean_label": mean_label,
        "mean_probability": _mean_probability(z, weights),
        "auc": auc(labels, z, weights),
        "auc_low": interval.low,
        "auc_high": interval.high,
        "average_precision": precision,
        "toss_metric": toss_from(precision, wll),
        "log_loss": log_loss(labels, logits=z, weight=weights),
        "normalized_entropy": normalized_entropy(labels, logits=z, weight=weights),
        "calibration_ratio": calibration,
        "expected_calibration_error": expected_calibration_error(
            labels, logits=z, weight=weights, num_bins=num_bins
        ),
    }
    if num_replicates:
        drawn = {
            **bootstrap_intervals(labels, z, weights, num_replicates=num_replicates),
            **ranking_intervals(labels, z, weights, num_replicates=num_replicates),
        }
        for name, ends in drawn.items():
            result[f"{name}_low"], result[f"{name}_high"] = ends.low, ends.high
    if clusters.ndim == 1:
        ends = calibration_interval(labels, z, weights, clusters)
        result["calibration_ratio_low"], result["calibration_ratio_high"] = ends.low, ends.high
    reason = _reason(total, clicks)
    if reason:
        result["undefined"] = reason
    return result


def _mean_probability(z: Array, weights: Array) -> float:
    # The calibration ratio against labels that are all 1 is the mean probability.
    return calibration_ratio(np.ones(len(z)), logits=z, weight=weights)


def _reason(total: float, clicks: float) -> str:
    if total == 0:
        return "no rows with weight"
    if clicks == 0:
        return "no clicks: auc, average precision, entropy and calibration ratio are not defined"
    if clicks == total:
        return "clicks only: auc and normalized entropy are not defined"
    return ""
