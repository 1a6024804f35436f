"""Norm health: are batch norm's moving statistics those of the hold-out, and what would fresh ones gain?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from models.calibration import Calibration
from models.keras2 import keras
from models.metrics import Interval, auc_difference_interval, bootstrap_intervals
from models.training.batch_statistics import reestimate_batch_statistics
from models.zoo.base import CTRModel
from serving.parity.checks import Check
from serving.parity.logits import frozen_batch_statistics, logit_function, logits_in_batches

__all__ = ["Company", "interval_json", "measure_batch_norm"]

_INFERENCE_ROWS = 8192


@dataclasses.dataclass(frozen=True)
class Company:
    """What one look at a model with batch statistics found.

    Attributes:
        health: the check `norm health`.
        served: raw served logits float32 [rows] "as trained" and "re-estimated".
    """

    health: Check
    served: dict[str, np.ndarray]


def measure_batch_norm(
    model: CTRModel,
    encoded: Mapping[str, np.ndarray],
    training_batches: Iterable[dict[str, tf.Tensor]],
    calibration: Calibration,
) -> Company:
    """Compares moving statistics with the hold-out's, and scores before and after re-estimating.

    Every statistic is put back as it was.

    Args:
        model: with batch statistics, dropout off.
        encoded: held-out rows with `label` and `weight`.
        training_batches: what the statistics are re-estimated on, of the training's batch size.
        calibration: the run's; fitted for the statistics as trained, used for both.
    """
    norms = _norms(model)
    moving = [(n.moving_mean.numpy(), n.moving_variance.numpy()) for n in norms]
    num_rows = len(encoded["label"])
    # One pass in inference mode, by pieces: only the last layer's logits are kept.
    served = {"as trained": _served(model, encoded)}
    with frozen_batch_statistics(model):
        whole = {name: tf.constant(value) for name, value in encoded.items()}
        reestimate_batch_statistics(model, [whole])
        held_out = [(n.moving_mean.numpy(), n.moving_variance.numpy()) for n in norms]
    with frozen_batch_statistics(model):
        num_batches = reestimate_batch_statistics(model, training_batches)
        served["re-estimated"] = _served(model, encoded)
    layers: dict[str, dict[str, float]] = {}
    for norm, (mean, variance), (held_mean, held_variance) in zip(
        norms, moving, held_out, strict=True
    ):
        # In units of what the layer divides by: what the error adds to a normalised unit.
        deviation = np.sqrt(variance + norm.epsilon)
        ratio = np.sqrt((held_variance + norm.epsilon) / (variance + norm.epsilon))
        layers[f"norm {len(layers) + 1}"] = {
            "units": len(mean),
            "mean_shift_largest": float(np.abs((held_mean - mean) / deviation).max()),
            "mean_shift_rms": float(np.sqrt(np.mean(((held_mean - mean) / deviation) ** 2))),
            "deviation_ratio_lowest": float(ratio.min()),
            "deviation_ratio_highest": float(ratio.max()),
        }
    gain = _gain(encoded, calibration, served["re-estimated"], served["as trained"])
    health = Check(
        "norm health",
        f"moving statistics against those of {num_rows} held-out rows, in moving deviations; "
        f"re-estimated on {num_batches} training batches",
        max(layer["mean_shift_largest"] for layer in layers.values()),
        None,
        {"layers": layers, "reestimated_minus_as_trained": gain, "batches": num_batches},
    )
    return Company(health, served)


def interval_json(interval: Interval) -> dict[str, float]:
    """Estimate and ends as plain values."""
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def _norms(model: CTRModel) -> list[keras.layers.BatchNormalization]:
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def _served(model: CTRModel, encoded: Mapping[str, np.ndarray]) -> np.ndarray:
    """Raw logits float32 [rows] in inference mode."""
    size = min(_INFERENCE_ROWS, len(encoded["ids"]))
    return logits_in_batches(logit_function(model, training=False), encoded, size, seed=0)


def _gain(
    encoded: Mapping[str, np.ndarray], calibration: Calibration, new: np.ndarray, old: np.ndarray
) -> dict[str, Any]:
    """Paired differences (re-estimated minus as trained) on the hold-out, with 95 % intervals."""
    label, weight = encoded["label"], encoded["weight"]
    first, second = (np.asarray(calibration.logits(tf.constant(z))) for z in (new, old))
    found = bootstrap_intervals(label, first, weight, second)
    found["auc"] = auc_difference_interval(label, first, second, weight)
    return {
        **{name: interval_json(interval) for name, interval in found.items()},
        "largest_logit_change": float(np.abs(first - second).max()),
    }
