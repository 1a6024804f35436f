"""Scores rows in inference mode and in file order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from models.train_step import model_inputs
from pipeline.data_directory import DataDirectory
from pipeline.dataset import evaluation_batches

if TYPE_CHECKING:
    from models.zoo.base import CTRModel

__all__ = [
    "Predictions",
    "compiled_logits",
    "evaluate_batches",
    "evaluate_run",
    "score_batches",
    "validation_metrics",
]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A split scored in file order; all arrays have one row a row.

    Attributes:
        label: float32 [rows].
        logit: float32 [rows].
        weight: float32 [rows].
        carry: float32 [rows, C].
    """

    label: np.ndarray
    logit: np.ndarray
    weight: np.ndarray
    carry: np.ndarray


def evaluate_run(
    model: CTRModel, data: DataDirectory, split: str, batch_size: int = 8192
) -> Predictions:
    """Scores a split in file order, in inference mode.

    Raises:
        ConfigError: the split has no rows.
    """
    return evaluate_batches(model, evaluation_batches(data, split, batch_size))


def evaluate_batches(model: CTRModel, batches: tf.data.Dataset) -> Predictions:
    """Scores batches in order, in inference mode."""
    return score_batches(compiled_logits(model, batches), batches)


def compiled_logits(model: CTRModel, batches: tf.data.Dataset) -> Callable[..., tf.Tensor]:
    """The model in inference mode, traced once for every batch size."""
    signature = {
        name: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)
        for name, tensor in model_inputs(batches.element_spec).items()
    }
    return tf.function(
        lambda inputs: model(inputs, training=False), input_signature=[signature], autograph=False
    )


def score_batches(logits_of: Callable[..., tf.Tensor], batches: tf.data.Dataset) -> Predictions:
    """What `evaluate_batches` does, with a model that is compiled already."""
    parts: list[tuple[np.ndarray, ...]] = []
    for batch in batches:
        label = batch["label"].numpy()
        carry = batch.get("carry")
        parts.append(
            (
                label,
                logits_of(model_inputs(batch)).numpy(),
                batch["weight"].numpy(),
                np.zeros((len(label), 0), np.float32) if carry is None else carry.numpy(),
            )
        )
    return Predictions(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def validation_metrics(predictions: Predictions) -> dict[str, float]:
    """AUC (exact, ties count half) and log loss of the raw logits, weighted."""
    label, logit = predictions.label.astype(bool), predictions.logit.astype(np.float64)
    weight = predictions.weight.astype(np.float64)
    log_loss = np.logaddexp(0.0, np.where(label, -logit, logit))
    metrics = {"log_loss": float(np.average(log_loss, weights=weight))}
    values, group = np.unique(logit, return_inverse=True)
    clicks = np.bincount(group, weight * label, minlength=len(values))
    others = np.bincount(group, weight * ~label, minlength=len(values))
    pairs = clicks.sum() * others.sum()
    if pairs:
        below = np.concatenate([[0.0], np.cumsum(others)[:-1]])
        metrics["auc"] = float((clicks * (below + 0.5 * others)).sum() / pairs)
    return metrics


