"""What an evaluation found: the metrics of a run on a split, and what exactly was measured.

RUN_DIR/metrics.json holds an `Evaluation` a split. Needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from pipeline.reports import Report, finite_or_none

__all__ = ["Evaluation", "Measured", "Metrics", "Truth"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics(Report):
    """The figures of `models.metrics.evaluate` on some rows; None where one is not defined.

    The ends of an interval are at 95 %; those after `undefined` are there where replicates were drawn.
    """

    count: int
    clicks: float
    mean_label: float | None
    mean_probability: float | None
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    average_precision: float | None
    toss_metric: float | None
    log_loss: float | None
    normalized_entropy: float | None
    calibration_ratio: float | None
    expected_calibration_error: float | None
    undefined: str = ""
    average_precision_low: float | None = None
    average_precision_high: float | None = None
    toss_metric_low: float | None = None
    toss_metric_high: float | None = None
    log_loss_low: float | None = None
    log_loss_high: float | None = None
    normalized_entropy_low: float | None = None
    normalized_entropy_high: float | None = None
    calibration_ratio_low: float | None = None
    calibration_ratio_high: float | None = None

    @classmethod
    def of(cls, found: Mapping[str, Any], **more: Any) -> Self:
        """From the names and numbers that `models.metrics.evaluate` gives."""
        return cls(**finite_or_none(found), **more)


@dataclasses.dataclass(frozen=True)
class Truth(Report):
    """How far from the best possible, where the rows carry their true click probability.

    Attributes:
        bayes_auc, bayes_log_loss: of the true probabilities.
        mean_true_probability: weighted.
        prediction_over_truth: mean prediction over mean true probability.
    """

    bayes_auc: float | None
    bayes_log_loss: float | None
    mean_true_probability: float | None
    prediction_over_truth: float | None


@dataclasses.dataclass(frozen=True)
class Measured(Report):
    """What an evaluation depends on: where these are the same it need not be repeated.

    Attributes:
        model: `RunDirectory.fingerprint`: what the config says of the weights and their calibration.
        batch_size: rows scored at once.
        replicates: of the bootstrap.
        segments: columns that the metrics are broken down by.
        weights, calibration: digests of both in the run; earlier versions wrote none.
    """

    model: str
    batch_size: int
    replicates: int
    segments: tuple[str, ...] = ()
    weights: str = ""
    calibration: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation(Metrics):
    """A run on a split: the calibrated figures themselves.

    Attributes:
        raw: those of the raw logits.
        measured: what was measured.
        truth: None without true probabilities.
        segments: by column, by value.
        calibration_says: `models.metrics.CalibrationVerdict` of the calibration ratio; "" in what earlier
            versions wrote.
    """

    raw: Metrics
    measured: Measured
    truth: Truth | None = None
    segments: Mapping[str, Mapping[str, Metrics]] = dataclasses.field(default_factory=dict)
    calibration_says: str = ""
