"""A training as an object: its states, and the loop over epochs and steps, from top to bottom.

The state of a training is its variables and its `Position` (epoch, step, history): the input is
rebuilt from the seed and these, so a run that was killed and resumed equals an unbroken one bit for
bit on a CPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
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
from models.training.batch_source import BatchSource
from models.training.batch_statistics import reestimate_batch_statistics
from models.training.checkpoints import Checkpoints
from models.training.process import layer_precision, sigterm_event
from models.training.progress import TrainingProgress
from models.training.result import TrainResult
from models.training.scoring import compiled_logits, score_batches, validation_metrics
from models.training.state import Position
from models.training.step import TrainSteps
from models.training.strategy import distributed_batches, make_strategy, per_replica_batch_size
from models.zoo import build_model
from models.zoo.base import CTRModel
from pipeline.errors import DivergedError, Interrupted

__all__ = ["Training"]

_BEST = "checkpoints/best.npz"


class Training:
    """One training: made where the last process left it, run to its end.

    Args:
        source: of the batches.
        model_config: what to build.
        config: how to train it.
        run: where everything goes; its newest checkpoint is restored.
        devices: the strategy's devices; None: all GPUs, else the CPU.

    Attributes:
        position: what is done so far; with the variables of `model` and `optimizer` the whole state.
        model: built in the scope of `strategy`.
        optimizer: likewise.

    Raises:
        ConfigError: the replicas cannot share the batch equally.
    """

    def __init__(
        self,
        source: BatchSource,
        model_config: ModelConfig,
        config: TrainConfig,
        run: RunDirectory,
        devices: list[str] | None = None,
    ) -> None:
        self._source, self._config, self._directory = source, config, run
        self._loss = resolve_loss(config.loss, source.label_rate)
        self.strategy = make_strategy(devices, config.cross_replica)
        self._replicas = self.strategy.num_replicas_in_sync
        self._per_replica = per_replica_batch_size(config.global_batch_size, self._replicas)
        self.model = self._built(model_config)
        self.optimizer = make_optimizer(
            config,
            source.steps_per_epoch,
            self.model,
            self.strategy,
            click_pull(self._loss, source.label_rate),
        )
        run.save_spec(source.spec)
        self._checkpoints = Checkpoints(
            run.checkpoints, config.keep_checkpoints, model=self.model, optimizer=self.optimizer
        )
        self.position = Position.restored(self._checkpoints.restore())
        self._train_steps = TrainSteps(
            self.model, self.optimizer, ClickLoss(self._loss), self.strategy, xla=config.xla
        )
        self._is_compiled = False  # until then a call is not timed: compilation is most of it
        self._logits_of: Callable[..., tf.Tensor] | None = None  # compiled by the first validation

    def _built(self, model_config: ModelConfig) -> CTRModel:
        config, source = self._config, self._source
        tables = host_tables if config.tables_on == "host" else contextlib.nullcontext
        with layer_precision(config.precision), self.strategy.scope(), tables():
            keras.utils.set_random_seed(config.seed)
            model = build_model(model_config, source.spec)
            model.prior_logit.assign(prior_logit(self._loss, source.label_rate))
        return model

    def run(self, show: bool = False) -> TrainResult:
        """Trains the epochs that are left, then writes weights and result.

        Args:
            show: progress on stderr.

        Raises:
            DivergedError: the loss is no longer finite.
            ConfigError: early stopping finds labels of one kind.
            Interrupted: on SIGTERM, after saving.
        """
        config, position = self._config, self.position
        total_steps = config.epochs * self._source.steps_per_epoch
        with (
            TrainingProgress(
                self._directory.logs, total_steps, config.global_batch_size, show=show
            ) as self._progress,
            sigterm_event() as self._terminated,
        ):
            self._announce()
            while position.epoch < config.epochs and not position.stopped:
                self._train_epoch()
                self._end_epoch()
            self._restore_best_epoch()
        return self._finish()

    def _announce(self) -> None:
        self._progress.say(
            f"global batch {self._config.global_batch_size:,} rows: {self._per_replica:,} on each "
            f"of {self._replicas} replica{'s' * (self._replicas > 1)}"
        )
        if self.position.global_step:
            self._progress.say(
                f"resuming at epoch {self.position.epoch + 1}, step {self.position.step}"
            )

    def _train_epoch(self) -> None:
        """The steps that are left of this epoch, with what falls due between them."""
        position, source = self.position, self._source
        iterator = distributed_batches(
            self.strategy, source.training(position.epoch, position.step)
        )
        while position.step < source.steps_per_epoch:
            self._run_steps(iterator, self._next_steps())
            if position.epoch == 1 and position.step == self._early_step:
                self._look_early()
            if position.global_step % self._config.checkpoint_every_steps == 0:
                self._save()
            self._stop_if_terminated()

    def _next_steps(self) -> int:
        """Up to the next thing to do: a checkpoint, the early look, the epoch's end."""
        position, every = self.position, self._config.checkpoint_every_steps
        stops = [every - position.global_step % every]
        stops.append(self._source.steps_per_epoch - position.step)
        if position.epoch == 1 and self._early_step > position.step:
            stops.append(self._early_step - position.step)
        return min(self._config.steps_per_execution, *stops)

    def _run_steps(self, iterator: Iterator[Any], num_steps: int) -> None:
        position = self.position
        started_s = time.perf_counter()
        sums = self._train_steps(iterator, tf.constant(num_steps))
        loss_sum, weight = (float(total) for total in sums)
        seconds = time.perf_counter() - started_s
        position.advance(num_steps, loss_sum, weight, seconds if self._is_compiled else None)
        self._is_compiled = True
        mean = loss_sum / weight if weight else 0.0
        if not math.isfinite(mean):
            raise DivergedError(
                "the training loss must stay finite",
                f"{mean} at step {position.global_step}",
                "Lower train.learning_rate, or set train.gradient_clip_norm=10.",
            )
        self._progress.steps(
            epoch=position.epoch,
            global_step=position.global_step,
            num_steps=num_steps,
            loss=mean,
            seconds=seconds,
        )

    @property
    def _early_step(self) -> int:
        """A tenth into the second epoch, where over-fitting to repeated rows first shows."""
        return math.ceil(self._source.steps_per_epoch / 10)

    def _look_early(self) -> None:
        found = self._validation()
        warning = found and self.position.overfitting(found, self._config.one_epoch_tolerance)
        if warning:
            self._progress.say(warning)

    def _end_epoch(self) -> None:
        """Statistics, validation, history and a checkpoint; the best epoch's weights are kept."""
        config, position, model = self._config, self.position, self.model
        if config.reestimate_batch_statistics and model.has_batch_statistics:
            sample = self._source.training(position.epoch, 0).take(config.reestimate_batches)
            reestimate_batch_statistics(model, sample)
        improved = position.end_epoch(
            self._validation(), config.early_stopping, config.global_batch_size
        )
        if config.early_stopping and improved:
            self._directory.save_weights(model, _BEST)
        self._directory.write_history(position.history)
        self._progress.epoch(position.history[-1])
        self._save()
        self._stop_if_terminated()

    def _validation(self) -> dict[str, float] | None:
        """Metrics of the hold-out as the model is now; None without one."""
        if self._source.validation is None:
            return None
        held_out = self._source.validation()
        if self._logits_of is None:
            self._logits_of = compiled_logits(self.model, held_out)
        return validation_metrics(score_batches(self._logits_of, held_out))

    def _save(self) -> None:
        self._checkpoints.save(self.position.global_step, dataclasses.asdict(self.position))

    def _stop_if_terminated(self) -> None:
        if self._terminated.is_set():
            self._save()
            raise Interrupted(
                f"stopped by SIGTERM at step {self.position.global_step}; the state is saved: "
                "run the same command to continue"
            )

    def _restore_best_epoch(self) -> None:
        position = self.position
        if self._config.early_stopping and position.best_epoch != position.epoch - 1:
            self._directory.load_weights(self.model, _BEST)
            self._progress.say(f"kept the weights of epoch {position.best_epoch + 1}")

    def _finish(self) -> TrainResult:
        """Writes the weights, then the result, by which the run counts as trained."""
        position = self.position
        result = TrainResult(
            epochs=position.epoch,
            global_step=position.global_step,
            best_epoch=position.best_epoch if self._config.early_stopping else position.epoch - 1,
            examples_per_s=position.history[-1]["examples_per_s"],
            loss=self._loss.model_dump(),
            history=position.history,
            replicas=self._replicas,
        )
        self._directory.save_weights(self.model)
        self._directory.write_json("training.json", dataclasses.asdict(result))
        return result
