"""What only a model with batch statistics is asked: norm health, and the sweep over batch compositions."""

from __future__ import annotations

import itertools

import numpy as np

from models.run_directory import RunDirectory
from pipeline.records.data_directory import DataDirectory
from pipeline.records.dataset import evaluation_batches, naming_damaged_shards, training_batches
from pipeline.records.encoded import model_inputs
from serving.export.signatures import ServingModule
from serving.parity.batch_composition import sweep
from serving.parity.checks import Check
from serving.parity.logits import frozen_batch_statistics, logit_function
from serving.parity.norm_health import measure_batch_norm

__all__ = ["SWEEP_ROWS", "batch_norm_checks", "held_out_rows"]

SWEEP_ROWS = 16_384
"""Held-out rows that are looked at: four batches of 4096, more than the parity sample holds."""


def held_out_rows(data: DataDirectory, limit: int) -> dict[str, np.ndarray]:
    """Up to `limit` encoded rows of the test split, or of the next one that has rows."""
    split = next(s for s in ("test", "validation", "train") if data.num_rows(s))
    batches, rows = [], 0
    for batch in evaluation_batches(data, split, 4096):
        batches.append({name: value.numpy() for name, value in batch.items()})
        rows += len(batches[-1]["label"])
        if rows >= limit:
            break
    return {name: np.concatenate([b[name] for b in batches])[:limit] for name in batches[0]}


def batch_norm_checks(run: RunDirectory, data: DataDirectory, module: ServingModule) -> list[Check]:
    """The checks `norm health` and `batch, composition`; none without batch statistics.

    Raises:
        DataError: a shard of `data` is damaged.
    """
    model, config = module.model, run.train_config
    if not model.has_batch_statistics:
        return []
    batch_size, seed = config.global_batch_size, config.seed
    with naming_damaged_shards(data):
        encoded = held_out_rows(data, SWEEP_ROWS)
        batches = training_batches(data, batch_size=batch_size, seed=seed, epoch=0)
        few = itertools.islice(map(model_inputs, batches), config.reestimate_batches)
        measured = measure_batch_norm(model, encoded, few, module.calibration)
    with frozen_batch_statistics(model):
        trained = logit_function(model, training=True)
        return [measured.health, sweep(trained, measured.served, encoded, data.spec)]
