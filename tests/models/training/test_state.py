"""Where a training is: early stopping by the metric that was chosen, and what an epoch leaves."""

from __future__ import annotations

import dataclasses
import json

import pytest

from models.config.train import EarlyStoppingConfig
from models.training.state import Position
from pipeline.errors import ConfigError

# By AUC the second epoch is best, by log loss the third.
EPOCHS = [
    {"auc": 0.70, "log_loss": 0.30},
    {"auc": 0.75, "log_loss": 0.29},
    {"auc": 0.74, "log_loss": 0.28},
    {"auc": 0.73, "log_loss": 0.31},
]


def run(stopping: EarlyStoppingConfig | None, epochs: list[dict[str, float]]) -> Position:
    position = Position()
    for validation in epochs:
        position.advance(10, loss_sum=5.0, weight=100.0, seconds=2.0)
        position.end_epoch(validation, stopping, batch_size=8)
        if position.stopped:
            break
    return position


@pytest.mark.parametrize("metric, best, ran", [("auc", 1, 3), ("log_loss", 2, 4)])
def test_the_chosen_metric_decides(metric, best, ran):
    position = run(EarlyStoppingConfig(metric=metric, patience=1), EPOCHS)
    assert (position.best_epoch, position.epoch, position.stopped) == (best, ran, True)


def test_patience_bears_a_worse_epoch_and_min_delta_ignores_a_small_gain():
    assert not run(EarlyStoppingConfig(metric="auc", patience=3), EPOCHS).stopped
    small = [{"auc": 0.70}, {"auc": 0.705}, {"auc": 0.709}]
    position = run(EarlyStoppingConfig(metric="auc", patience=2, min_delta=0.01), small)
    assert (position.best_epoch, position.stopped) == (0, True)


def test_without_early_stopping_every_epoch_runs():
    assert run(None, EPOCHS).epoch == len(EPOCHS)


def test_an_epoch_leaves_its_mean_loss_and_speed():
    (record, *_) = run(None, EPOCHS).history
    assert record == {
        "epoch": 0,
        "global_step": 10,
        "train_loss": 0.05,
        "examples_per_s": 40.0,
        "validation": EPOCHS[0],
    }


def test_a_metric_that_cannot_be_had_is_refused():
    with pytest.raises(ConfigError, match="auc needs clicks and non-clicks"):
        run(EarlyStoppingConfig(metric="auc"), [{"log_loss": 0.1}])


def test_it_survives_json():
    position = run(EarlyStoppingConfig(), EPOCHS)
    assert Position.restored(json.loads(json.dumps(dataclasses.asdict(position)))) == position
