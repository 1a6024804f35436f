"""Metrics of click models: exact, weighted, with intervals.

Every function takes `label` [rows] and one of `logits` or `probability` [rows], with an optional
`weight` [rows]. Ranking metrics take any `score` that rises with the probability.
"""

from models.metrics.calibration_interval import (
    CalibrationVerdict,
    calibration_interval,
    calibration_verdict,
)
from models.metrics.evaluation import evaluate
from models.metrics.intervals import (
    Interval,
    auc_difference_interval,
    auc_interval,
    bootstrap_intervals,
)
from models.metrics.paired import (
    PAIRED_METRICS,
    PairedDifference,
    SeedDeviation,
    paired_difference,
)
from models.metrics.probability import (
    calibration_ratio,
    expected_calibration_error,
    log_loss,
    normalized_entropy,
    reliability_bins,
    toss_metric,
    weighted_log_loss,
)
from models.metrics.ranking import auc, average_precision
from models.metrics.ranking_intervals import ranking_intervals

__all__ = [
    "PAIRED_METRICS",
    "CalibrationVerdict",
    "Interval",
    "PairedDifference",
    "SeedDeviation",
    "auc",
    "auc_difference_interval",
    "auc_interval",
    "average_precision",
    "bootstrap_intervals",
    "calibration_interval",
    "calibration_ratio",
    "calibration_verdict",
    "evaluate",
    "expected_calibration_error",
    "log_loss",
    "normalized_entropy",
    "paired_difference",
    "ranking_intervals",
    "reliability_bins",
    "toss_metric",
    "weighted_log_loss",
]
