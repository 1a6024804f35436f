"""Trains a model on a data directory, or on any source of batches, into a run directory."""

from __future__ import annotations

import tensorflow as tf

from models.config.model import ModelConfig
from models.config.train import TrainConfig
from models.run_directory import RunDirectory
from models.training.batch_source import BatchSource
from models.training.loop import Training
from models.training.process import set_process_options
from models.training.result import TrainResult
from models.training.split_check import check_splits
from models.training.table_memory import check_tables_fit
from pipeline.errors import ConfigError
from pipeline.records.data_directory import DataDirectory
from pipeline.records.dataset import naming_damaged_shards

__all__ = ["BatchSource", "TrainResult", "train", "train_on"]


def train(
    data: DataDirectory,
    model_config: ModelConfig,
    train_config: TrainConfig,
    run: RunDirectory,
    *,
    devices: list[str] | None = None,
    progress: bool = True,
) -> TrainResult:
    """Trains on a data directory, or goes on with it, or returns at once when that is done.

    Args:
        data: with rows in its train split.
        model_config: what to build.
        train_config: how to train it.
        run: where everything goes; made for this config and data.
        devices: the strategy's devices; None: all GPUs, else the CPU.
        progress: show a line on stderr.

    Raises:
        ConfigError: the config asks for what the data cannot give.
        DataError: a shard of `data` is damaged, or its splits cannot be trained on (`check_splits`).
        Interrupted: on SIGTERM, after saving.
    """
    if run.is_trained:
        return TrainResult(**run.read_json("training.json"))
    check_splits(data, train_config)
    source = BatchSource.of(data, train_config)
    with naming_damaged_shards(data):
        return train_on(source, model_config, train_config, run, devices=devices, progress=progress)


def train_on(
    source: BatchSource,
    model_config: ModelConfig,
    config: TrainConfig,
    run: RunDirectory,
    *,
    devices: list[str] | None = None,
    progress: bool = False,
) -> TrainResult:
    """`train` over any source of batches."""
    if config.early_stopping not in (None, "auto") and source.validation is None:
        raise ConfigError(
            "early stopping needs validation rows",
            "0 rows in the validation split",
            "Give it a share in the schema's `split`, or leave train.early_stopping out.",
        )
    if config.tables_on == "host" or not (devices or tf.config.list_physical_devices("GPU")):
        check_tables_fit(source.spec, model_config, config)  # else they are in a GPU's own memory
    set_process_options(config)
    return Training(source, model_config, config, run, devices).run(progress)
