"""A training as an object: its states, and the loop over epochs and steps, from top to bottom.

The state of a training is its variables and its `Position` (epoch, step, history): the input is
rebuilt from the seed and these, so a run that was killed and resumed equals an unbroken one bit for
bit on a CPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
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
from models.training.averaging import WeightAverage
from models.training.batch_source import BatchSource
from models.training.batch_statistics import follow_number_of_steps, reestimate_batch_statistics
from models.training.checkpoints import Checkpoints
from models.training.process import layer_precision
from models.training.progress import TrainingProgress
from models.training.result import TrainResult
from models.training.scoring import compiled_logits, score_batches, validation_metrics
from models.training.state import Position
from models.training.step import TrainSteps
from models.training.strategy import distributed_batches, make_strategy, per_replica_batch_size
from models.zoo import build_model
from models.zoo.base import CTRModel
from pipeline.errors import DivergedError, Interrupted
from pipeline.sigterm import sigterm_event

__all__ = ["Training"]

_LOG = logging.getLogger(__name__)
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
        average: of the weights, which is validated and kept; None: the last iterate is.

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
        self.average: WeightAverage | None = None
        if config.averaging.kind != "none":
            self.average = WeightAverage(
                config.averaging, source.steps_per_epoch, self.model, self.optimizer, self.strategy
            )
        run.save_spec(source.spec)
        trackables = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        self._checkpoints = Checkpoints(
            run.checkpoints,
            config.keep_checkpoints,
            **{name: value for name, value in trackables.items() if value is not None},
        )
        self.position = Position.restored(self._checkpoints.restore())
        self._stopping = config.stopping
        self._max_steps = math.floor(config.max_epochs * source.steps_per_epoch)
        if source.validation is None:
            self._go_without("no validation rows")
        self._train_steps = TrainSteps(
            self.model,
            self.optimizer,
            ClickLoss(self._loss),
            self.strategy,
            average=self.average,
            xla=config.xla,
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
        follow_number_of_steps(model, source.steps_per_epoch)
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
        with (
            TrainingProgress(
                self._directory.logs, self._max_steps, config.global_batch_size, show=show
            ) as self._progress,
            sigterm_event() as self._terminated,
        ):
            self._announce()
            while position.global_step < self._max_steps and not position.stopped:
                self._train_epoch()
                if not position.stopped:
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
        position = self.position
        iterator = distributed_batches(
            self.strategy, self._source.training(position.epoch, position.step)
        )
        while position.step < self._epoch_steps and not position.stopped:
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
        stops.append(self._epoch_steps - position.step)
        if position.epoch == 1 and self._early_step > position.step:
            stops.append(self._early_step - position.step)
        return min(self._config.steps_per_execution, *stops)

    def _run_steps(self, iterator: Iterator[Any], num_steps: int) -> None:
        position = self.position
        started_s = time.perf_counter()
        sums = self._train_steps(iterator, tf.constant(num_steps), tf.constant(self._averaged))
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
    def _epoch_steps(self) -> int:
        """Steps of this epoch: the last one may end before all rows were seen."""
        steps = self._source.steps_per_epoch
        return min(steps, self._max_steps - self.position.epoch * steps)

    @property
    def _early_step(self) -> int:
        """A tenth into the second epoch, where over-fitting to repeated rows first shows."""
        return math.ceil(self._source.steps_per_epoch / 10)

    @property
    def _averaged(self) -> int:
        """Steps that the average covers; below 1: not begun.

        Before the early look at the second epoch it is over the steps of that epoch, else over the last
        `length` steps, as far as they are this side of that look.
        """
        if self.average is None:
            return 0
        position, start = self.position, self._epoch_steps - self.average.length
        if position.epoch == 1:
            is_early = position.early_validation is None
            start = 0 if is_early else max(start, self._early_step)
        return self.average.steps_before(position.step, position.global_step, start)

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """The model has the averaged weights inside, with statistics re-estimated for them."""
        config, position, model = self._config, self.position, self.model
        covered = self._averaged
        if self.average is not None:
            self.average.put_in(covered)
        if config.reestimate_batch_statistics and model.has_batch_statistics:
            sample = self._source.training(position.epoch, 0).take(config.reestimate_batches)
            reestimate_batch_statistics(model, sample)
        yield
        if self.average is not None and not position.stopped:
            self.average.take_out(covered)

    def _look_early(self) -> None:
        """A tenth into the second epoch: what over-fits there is stopped there, or warned about.

        Where validation chooses the number of epochs these weights are a choice, too.
        """
        position, config = self.position, self._config
        with self._averaged_weights():
            found = self._validation() or {}
            stopping = self._stopping if config.early_stopping == "auto" else None
            complaint = position.overfitting(found, config.one_epoch_tolerance)
            position.stopped = stopping is not None and complaint is not None
            if stopping and position.improves(found, stopping):
                self._directory.save_weights(self.model, _BEST)
        if complaint and position.stopped:
            self._progress.say(f"{complaint}: stopped")
            position.end_epoch(found, None, config.global_batch_size)
            self._record_epoch()
        elif complaint:
            remedy = "Set train.epochs=1, or train.early_stopping=true to keep the best epoch."
            self._progress.say(f"warning: {complaint}. {remedy}")

    def _end_epoch(self) -> None:
        """Validation, history and a checkpoint; the best epoch's weights are kept.

        After the last epoch the averaged weights stay in the model.
        """
        config, position = self._config, self.position
        with self._averaged_weights():
            validation = self._validation()
            improved = position.end_epoch(validation, self._stopping, config.global_batch_size)
            position.stopped |= position.global_step >= self._max_steps
            if improved and not position.stopped:
                self._directory.save_weights(self.model, _BEST)
        self._record_epoch()

    def _record_epoch(self) -> None:
        position = self.position
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
        predictions = score_batches(self._logits_of, held_out)
        lack = predictions.lack_of_evidence(self._config.evidence_clicks)
        if lack:
            self._go_without(lack)
        return validation_metrics(predictions)

    def _go_without(self, lack: str) -> None:
        """Validation cannot choose the number of epochs: `auto` is one, a given number is run."""
        config = self._config
        if config.early_stopping != "auto" or self._stopping is None:
            return
        self._stopping = None
        if config.epochs == "auto":
            self._max_steps = self._source.steps_per_epoch
        _LOG.warning(
            "validation cannot choose the number of epochs (%s): %g run; lower "
            "train.evidence_clicks, give the schema's split a larger validation share, or set "
            "train.epochs and train.early_stopping=false",
            lack,
            self._max_steps / self._source.steps_per_epoch,
        )

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
        if position.best_value is not None and position.best_step != position.global_step:
            self._directory.load_weights(self.model, _BEST)
            self._progress.say(
                f"kept the weights of epoch {position.best_epoch + 1}, step {position.best_step}"
            )

    def _finish(self) -> TrainResult:
        """Writes the weights, then the result, by which the run counts as trained."""
        position = self.position
        result = TrainResult(
            epochs=position.epoch,
            global_step=position.global_step,
            best_epoch=position.epoch - 1 if position.best_value is None else position.best_epoch,
            best_step=position.global_step if position.best_value is None else position.best_step,
            examples_per_s=position.history[-1]["examples_per_s"],
            loss=self._loss.model_dump(),
            history=position.history,
            replicas=self._replicas,
        )
        self._directory.save_weights(self.model)
        self._directory.write_json("training.json", dataclasses.asdict(result))
        return result
