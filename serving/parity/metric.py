"""The metric check: two runs on the same held-out rows, paired, with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from models.metrics import PAIRED_METRICS, paired_difference
from models.run_directory import RunDirectory
from models.trained_run import TrainedRun
from models.training.scoring import score_split
from pipeline.errors import ConfigError
from serving.parity.norm_health import interval_json
from serving.parity.outcome import Check

__all__ = ["metric_difference"]


def metric_difference(ours: TrainedRun, theirs: TrainedRun) -> Check:
    """AUC, log loss and calibration of `ours` minus those of `theirs`, on the whole test split.

    Each with its paired interval at 95 % (`models.metrics.paired`), of the test rows' error alone: one
    training a side. "No difference" is a valid answer, and so it says when an interval holds 0.

    Raises:
        ConfigError: the runs were trained on different data.
    """
    run, other = ours.run, theirs.run
    if run.data_fingerprint != other.data_fingerprint:
        raise ConfigError(
            "runs are compared on the same rows",
            f"{run.path} was trained on data {run.data_fingerprint}, "
            f"{other.path} on {other.data_fingerprint}",
            "Train both on one data directory.",
        )
    logits = []
    for each in (ours, theirs):
        scored = score_split(each.model, each.data, "test")
        logits.append(np.asarray(each.calibration.logits(tf.constant(scored.logit))))
    label, weight = scored.label, scored.weight
    found = {
        name: paired_difference(name, label, logits[:1], logits[1:], weight).interval()
        for name in PAIRED_METRICS
    }
    differences: dict[str, Any] = {n: interval_json(found[n]) for n in sorted(found)}
    differs = {n: not (i.low <= 0.0 <= i.high) for n, i in found.items() if i.low <= i.high}
    return Check(
        "metric",
        f"AUC minus that of {_name(other)} on {len(label)} test rows (95 % interval "
        f"{found['auc'].low:+.4f} to {found['auc'].high:+.4f})",
        found["auc"].estimate,
        None,
        {
            "against": {"run": other.fingerprint, "name": _name(other)},
            "rows": len(label),
            "differences": differences,
            "differs": dict(sorted(differs.items())),
        },
    )


def _name(run: RunDirectory) -> str:
    return f"{run.model_config.name}, {run.model_config.norm.kind} norm"
