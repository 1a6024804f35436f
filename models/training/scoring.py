"""Scores rows in inference mode and in file order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from models.metrics import auc, log_loss
from pipeline.records.data_directory import DataDirectory
from pipeline.records.dataset import evaluation_batches, naming_damaged_shards
from pipeline.records.encoded import model_inputs

if TYPE_CHECKING:
    from models.zoo.base import CTRModel

__all__ = [
    "Predictions",
    "compiled_logits",
    "evaluate_batches",
    "score_batches",
    "score_split",
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

    def lack_of_evidence(self, least: int) -> str:
        """Why these rows cannot choose between two models; empty when they can.

        Args:
            least: rows with weight that each class must have.
        """
        counted = self.label[self.weight > 0]
        clicks = int((counted == 1).sum())
        for name, count in (("clicks", clicks), ("rows without a click", len(counted) - clicks)):
            if count < least:
                return f"{count} validation {name} with weight, fewer than {least}"
        return ""


def score_split(
    model: CTRModel, data: DataDirectory, split: str, batch_size: int = 8192
) -> Predictions:
    """Scores a split in file order, in inference mode.

    Raises:
        ConfigError: the split has no rows.
        DataError: a shard is damaged.
    """
    with naming_damaged_shards(data):
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
    """Exact AUC and the log loss of the raw logits, weighted; what is not defined is left out."""
    label, weight = predictions.label, predictions.weight
    metrics = {
        "log_loss": log_loss(label, logits=predictions.logit, weight=weight),
        "auc": auc(label, predictions.logit, weight),
    }
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
