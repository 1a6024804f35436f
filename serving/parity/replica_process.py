"""One optimizer step on one and on two replicas, in a process of its own.

Two logical CPUs can only be made before TensorFlow starts, so this is never imported.

    python -m serving.parity.replica_process RUN_DIR ROWS.npz ANSWER.npz

ROWS: encoded tensors with label and weight. ANSWER: for each variant logits before the step
(`<variant>/0`) and after it on one and on two replicas (`<variant>/1`, `<variant>/2`), float32 [n].
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import tensorflow as tf
from pydantic import BaseModel

from models.config.train import ScheduleConfig, TrainConfig, parse_train_config
from models.losses import ClickLoss
from models.norms.batch import BatchNormConfig
from models.optimizers import make_optimizer
from models.run_directory import RunDirectory
from models.training.step import TrainSteps
from models.training.strategy import distributed_batches, make_strategy
from models.zoo import build_model
from pipeline.records.encoded import model_inputs
from serving.parity.replica import AS_CONFIGURED, batch_norms

__all__: list[str] = []

_Config = TypeVar("_Config", bound=BaseModel)


def main(run_dir: str, rows_path: str, answer_path: str) -> None:
    """Steps the run's trained weights with its own optimizer and loss."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    run = RunDirectory.open(run_dir)
    with np.load(rows_path) as arrays:
        rows = dict(arrays)
    variants: dict[str, bool | None] = {}
    if norms := batch_norms(run.model_config):
        variants = {"per replica": False, "synchronised": True}
    if len({norm.synchronized for norm in norms}) != 1:
        variants[AS_CONFIGURED] = None
    tf.config.experimental.enable_tensor_float_32_execution(False)
    answer = {}
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        # One strategy for all variants: those of two would number their collectives alike.
        strategy = make_strategy(devices)
        for name, synchronized in variants.items():
            before, after = _after_one_step(run, rows, strategy, synchronized)
            answer[f"{name}/0"], answer[f"{name}/{len(devices)}"] = before, after
    np.savez(answer_path, **answer)  # type: ignore[arg-type]


def _after_one_step(
    run: RunDirectory,
    rows: Mapping[str, np.ndarray],
    strategy: tf.distribute.Strategy,
    synchronized: bool | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Served logits [n] before and after one step on all rows as the global batch."""
    model_config, config = run.model_config, _at_full_rate(run.train_config)
    if synchronized is not None:
        model_config = _with_batch_norms(model_config, synchronized)
    with strategy.scope():
        model = build_model(model_config, run.spec, dropout=0.0)
    optimizer = make_optimizer(config, 1, model, strategy)
    run.load_weights(model)
    loss = parse_train_config({"loss": run.read_json("training.json")["loss"]}).loss
    step = TrainSteps(model, optimizer, ClickLoss(loss), strategy)
    num_rows = len(rows["label"])
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    batch = tf.data.Dataset.from_tensor_slices(dict(rows)).batch(num_rows, drop_remainder=True)
    iterator = distributed_batches(strategy, batch.with_options(options))
    inputs = model_inputs({name: tf.constant(value) for name, value in rows.items()})

    @tf.function
    def logits() -> tf.Tensor:
        return model(inputs, training=False)

    before = logits().numpy()
    step(iterator, tf.constant(1))
    return before, logits().numpy()


def _with_batch_norms(config: _Config, synchronized: bool) -> _Config:
    """The same with every batch norm in it synchronised, or none."""
    changed: dict[str, BaseModel] = {}
    for name in type(config).model_fields:
        field = getattr(config, name)
        if isinstance(field, BatchNormConfig):
            changed[name] = field.model_copy(update={"synchronized": synchronized})
        elif isinstance(field, BaseModel):
            changed[name] = _with_batch_norms(field, synchronized)
    return config.model_copy(update=changed)


def _at_full_rate(config: TrainConfig) -> TrainConfig:
    """Without warm-up or decay: the first step of a schedule may have a rate of zero."""
    scaling = config.scaling.model_copy(update={"warmup_epochs": 0.0})
    plain = {"precision": "float32", "tables_on": "device"}
    return config.model_copy(update={"schedule": ScheduleConfig(), "scaling": scaling, **plain})


if __name__ == "__main__":
    main(*sys.argv[1:])
