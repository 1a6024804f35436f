"""Trains a model under `MirroredStrategy`, from wherever the last process was stopped.

The state of a training is its variables and (seed, epoch, step): the input is rebuilt from these,
so a run that was killed and resumed equals an unbroken one bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from models.calibration.correction import click_pull, prior_logit
from models.config.model import ModelConfig
from models.config.train import TrainConfig
from models.keras2 import keras
from models.layers.host_tables import host_tables
from models.losses import ClickLoss, resolve_loss
from models.optimizers import make_optimizer
from models.run_directory import RunDirectory
from models.training.batch_statistics import reestimate_batch_statistics
from models.training.checkpoints import Checkpoints
from models.training.progress import TrainingProgress
from models.training.scoring import (
    Predictions,
    compiled_logits,
    evaluate_batches,
    evaluate_run,
    score_batches,
    validation_metrics,
)
from models.training.state import Position
from models.training.step import make_strategy, make_train_steps
from models.zoo import build_model
from pipeline.errors import ConfigError
from pipeline.records.data_directory import DataDirectory
from pipeline.records.dataset import (
    evaluation_batches,
    naming_damaged_shards,
    steps_per_epoch,
    training_batches,
)
from pipeline.records.encoded import EncodedSpec

__all__ = [
    "BatchSource",
    "Interrupted",
    "Predictions",
    "TrainResult",
    "evaluate_batches",
    "evaluate_run",
    "train",
    "train_on",
]

_BEST = "checkpoints/best.npz"


class Interrupted(Exception):  # noqa: N818 - it is no error
    """SIGTERM came: the state is saved, and the same command goes on from it."""

    exit_code = 143


@dataclasses.dataclass(frozen=True)
class BatchSource:
    """Where batches come from: files in production, memory in tests.

    Attributes:
        spec: of every batch.
        steps_per_epoch: global batches that show every training row once.
        label_rate: weighted share of clicks in the training rows.
        training: (epoch, first step) -> that epoch's batches of exactly the global batch size.
        validation: -> the hold-out's batches in order; None without one.
    """

    spec: EncodedSpec
    steps_per_epoch: int
    label_rate: float
    training: Callable[[int, int], tf.data.Dataset]
    validation: Callable[[], tf.data.Dataset] | None

    @classmethod
    def of(cls, data: DataDirectory, config: TrainConfig) -> BatchSource:
        """The batches of a data directory."""
        size, seed = config.global_batch_size, config.seed
        has_validation = data.num_rows("validation") > 0
        return cls(
            spec=data.spec,
            steps_per_epoch=steps_per_epoch(data, size),
            label_rate=data.label_rate("train"),
            training=lambda epoch, first_step: training_batches(
                data, batch_size=size, seed=seed, epoch=epoch, first_step=first_step
            ),
            validation=(
                lambda: evaluation_batches(data, "validation", config.evaluation_batch_size)
            )
            if has_validation
            else None,
        )


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a training came to; RUN_DIR/training.json.

    Attributes:
        epochs: that were run.
        global_step: steps that were run, over all processes.
        best_epoch: counted from 0; whose weights were kept.
        examples_per_s: rows trained per second of this process's last epoch; 0 if it had none.
        loss: the resolved loss, plain data: what `models.calibration` corrects for.
        history: one record an epoch.
        replicas: devices that shared each global batch equally.
    """

    epochs: int
    global_step: int
    best_epoch: int
    examples_per_s: float
    loss: dict[str, Any]
    history: list[dict[str, Any]]
    replicas: int = 1


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
        DataError: a shard of `data` is damaged.
        Interrupted: on SIGTERM, after saving.
    """
    if run.is_trained:
        return TrainResult(**run.read_json("training.json"))
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
    if config.early_stopping and source.validation is None:
        raise ConfigError(
            "early stopping needs validation rows",
            "0 rows in the validation split",
            "Give it a share in the schema's `split`, or leave train.early_stopping out.",
        )
    _set_process_options(config)
    loss = resolve_loss(config.loss, source.label_rate)
    strategy = make_strategy(devices, config.cross_replica)
    replicas = strategy.num_replicas_in_sync
    per_replica_batch_size = _per_replica_batch_size(config.global_batch_size, replicas)
    tables = host_tables if config.tables_on == "host" else contextlib.nullcontext
    with _precision(config.precision), strategy.scope(), tables():
        keras.utils.set_random_seed(config.seed)
        model = build_model(model_config, source.spec)
        model.prior_logit.assign(prior_logit(loss, source.label_rate))
    pull = click_pull(loss, source.label_rate)
    optimizer = make_optimizer(config, source.steps_per_epoch, model, strategy, pull)
    run.save_spec(source.spec)
    checkpoints = Checkpoints(
        run.checkpoints, config.keep_checkpoints, model=model, optimizer=optimizer
    )
    position = Position.restored(checkpoints.restore())
    train_steps = make_train_steps(model, optimizer, ClickLoss(loss), strategy, xla=config.xla)
    logits_of: Callable[..., tf.Tensor] | None = None
    compiled = False
    total_steps = config.epochs * source.steps_per_epoch
    with (
        TrainingProgress(run.logs, total_steps, config.global_batch_size, show=progress) as shown,
        _sigterm() as terminated,
    ):
        shown.say(
            f"global batch {config.global_batch_size:,} rows: "
            f"{per_replica_batch_size:,} on each of {replicas} replica{'s' * (replicas > 1)}"
        )
        if position.global_step:
            shown.say(f"resuming at epoch {position.epoch + 1}, step {position.step}")

        def validate() -> dict[str, float]:
            nonlocal logits_of
            assert source.validation is not None
            held_out = source.validation()
            logits_of = logits_of or compiled_logits(model, held_out)
            return validation_metrics(score_batches(logits_of, held_out))

        def save() -> None:
            checkpoints.save(position.global_step, dataclasses.asdict(position))

        def stop_if_terminated() -> None:
            if terminated.is_set():
                save()
                raise Interrupted(
                    f"stopped by SIGTERM at step {position.global_step}; the state is saved: "
                    "the same command goes on from there"
                )

        while position.epoch < config.epochs and not position.stopped:
            batches = source.training(position.epoch, position.step)
            iterator = iter(strategy.experimental_distribute_dataset(batches))
            while position.step < source.steps_per_epoch:
                num_steps = _next_steps(position, source, config)
                started_s = time.perf_counter()
                sums = train_steps(iterator, tf.constant(num_steps))
                loss_sum, weight = (float(total) for total in sums)
                seconds = time.perf_counter() - started_s
                position.advance(num_steps, loss_sum, weight, seconds if compiled else None)
                compiled = True
                mean = loss_sum / weight if weight else 0.0
                if not math.isfinite(mean):
                    raise ConfigError(
                        "the training loss must stay finite",
                        f"{mean} at step {position.global_step}",
                        "Lower train.learning_rate, or set train.gradient_clip_norm=10.",
                    )
                shown.steps(
                    epoch=position.epoch,
                    global_step=position.global_step,
                    num_steps=num_steps,
                    loss=mean,
                    seconds=seconds,
                )
                if _is_early_look(position, source):
                    warning = position.overfitting(validate(), config.one_epoch_tolerance)
                    if warning:
                        shown.say(warning)
                if position.global_step % config.checkpoint_every_steps == 0:
                    save()
                stop_if_terminated()
            if config.reestimate_batch_statistics and model.has_batch_statistics:
                sample = source.training(position.epoch, 0).take(config.reestimate_batches)
                reestimate_batch_statistics(model, sample)
            validation = validate() if source.validation is not None else None
            improved = position.end_epoch(
                validation, config.early_stopping, config.global_batch_size
            )
            if config.early_stopping and improved:
                run.save_weights(model, _BEST)
            run.write_history(position.history)
            shown.epoch(position.history[-1])
            save()
            stop_if_terminated()
        if config.early_stopping and position.best_epoch != position.epoch - 1:
            run.load_weights(model, _BEST)
            shown.say(f"kept the weights of epoch {position.best_epoch + 1}")
    result = TrainResult(
        epochs=position.epoch,
        global_step=position.global_step,
        best_epoch=position.best_epoch if config.early_stopping else position.epoch - 1,
        examples_per_s=position.history[-1]["examples_per_s"],
        loss=loss.model_dump(),
        history=position.history,
        replicas=replicas,
    )
    run.save_weights(model)
    run.write_json("training.json", dataclasses.asdict(result))
    return result


def _per_replica_batch_size(global_batch_size: int, replicas: int) -> int:
    """Rows of one step on one replica.

    Raises:
        ConfigError: replicas would get unequal parts, of which batch norm would make unequal rows.
    """
    if global_batch_size % replicas:
        nearest = max(1, round(global_batch_size / replicas)) * replicas
        raise ConfigError(
            "train.global_batch_size must be a multiple of the number of replicas",
            f"{global_batch_size} rows over {replicas} replicas",
            f"Set train.global_batch_size={nearest}.",
        )
    return global_batch_size // replicas


def _next_steps(position: Position, source: BatchSource, config: TrainConfig) -> int:
    """Up to the next thing to do: a checkpoint, the early look, the epoch's end."""
    every = config.checkpoint_every_steps
    stops = [every - position.global_step % every, source.steps_per_epoch - position.step]
    early = _early_step(source) - position.step
    if position.epoch == 1 and early > 0:
        stops.append(early)
    return min(config.steps_per_execution, *stops)


def _early_step(source: BatchSource) -> int:
    return math.ceil(source.steps_per_epoch / 10)


def _is_early_look(position: Position, source: BatchSource) -> bool:
    """A tenth into the second epoch, where over-fitting to repeated rows first shows."""
    at_its_step = position.epoch == 1 and position.step == _early_step(source)
    return at_its_step and source.validation is not None


def _set_process_options(config: TrainConfig) -> None:
    if config.deterministic:
        keras.utils.set_random_seed(config.seed)  # determinism refuses unseeded random ops
        tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(config.matmul == "default")


@contextlib.contextmanager
def _precision(precision: str) -> Iterator[None]:
    """The Keras policy for layers that are made inside; the process keeps its own."""
    before = keras.mixed_precision.global_policy()
    name = "float32" if precision == "float32" else f"mixed_{precision}"
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


@contextlib.contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process between two writes."""
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield terminated  # only the main thread may set handlers; its owner decides
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)
