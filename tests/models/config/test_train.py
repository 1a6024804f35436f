"""What a training config accepts, and what it says when it does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from models.config.train import (
    EarlyStoppingConfig,
    FocalConfig,
    PosWeightConfig,
    TrainConfig,
    parse_train_config,
)
from pipeline.errors import ConfigError


def test_nothing_means_defaults():
    assert parse_train_config(None) == parse_train_config({}) == TrainConfig()


@pytest.mark.parametrize(
    "raw, loss",
    [
        ("focal", FocalConfig()),
        ({"kind": "pos_weight"}, PosWeightConfig(pos_weight="balanced")),
        ({"kind": "pos_weight", "pos_weight": 4}, PosWeightConfig(pos_weight=4.0)),
    ],
)
def test_a_loss_is_a_name_or_a_mapping(raw, loss):
    assert parse_train_config({"loss": raw}).loss == loss


def test_true_means_the_defaults_of_an_option():
    assert parse_train_config({"early_stopping": True}).early_stopping == EarlyStoppingConfig()
    assert parse_train_config({"early_stopping": False}).early_stopping is None


@pytest.mark.parametrize(
    "raw, message",
    [
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"loss": "focall"}, "did you mean 'focal'"),
        ({"loss": {"kind": "focal", "gama": 1}}, "did you mean 'gamma'"),
        ({"embedding_optimizer": "adagrd"}, "did you mean 'adagrad'"),
        ({"global_batch_size": 0}, "train.global_batch_size.*got 0"),
        ({"learning_rate": -1.0}, "train.learning_rate.*got -1.0"),
        ({"loss": {"kind": "pos_weight", "pos_weight": "balancd"}}, "train.loss.*got 'balancd'"),
        ({"cowclip": True, "embedding_optimizer": "adam"}, "lazy_adam"),
        ({"tables_on": "host", "embedding_optimizer": "adam"}, "row-sparse"),
        ({"cowclip": {}, "gradient_clip_norm": 1.0}, "Leave one of them out"),
        ([1, 2], "train must be a mapping"),
    ],
)
def test_a_mistake_is_told_with_rule_value_and_remedy(raw, message):
    with pytest.raises(ConfigError, match=f"(?i){message}") as caught:
        parse_train_config(raw)
    assert caught.value.exit_code == 2


def test_it_survives_json():
    config = parse_train_config({"loss": {"kind": "focal", "gamma": 1}, "cowclip": True})
    assert parse_train_config(config.model_dump(mode="json")) == config


def test_reading_a_config_does_not_import_tensorflow():
    code = "import models.config.train, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name, rate", [("adagrad", 0.1), ("ftrl", 0.1), ("lazy_adam", 0.01)])
def test_the_tables_rate_follows_their_optimizer_unless_given(name, rate):
    assert parse_train_config({"embedding_optimizer": name}).embedding_learning_rate == rate
    given = {"embedding_optimizer": name, "embedding_learning_rate": 0.3}
    assert parse_train_config(given).embedding_learning_rate == 0.3
    again = parse_train_config(parse_train_config(given).model_dump(mode="json"))
    assert again == parse_train_config(given)


def test_an_initial_accumulator_is_refused_where_there_is_none():
    with pytest.raises(ConfigError, match="belongs to adagrad, rowwise_adagrad and ftrl"):
        parse_train_config(
            {"embedding_optimizer": "lazy_adam", "embedding_initial_accumulator": 0.1}
        )
