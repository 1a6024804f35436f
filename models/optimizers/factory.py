"""From a config to the optimizer that it describes."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from models.config.train import TrainConfig
from models.keras2 import keras
from models.optimizers.adagrad import RowSparseAdagrad, RowwiseAdagrad
from models.optimizers.composite import CompositeOptimizer
from models.optimizers.ftrl import RowSparseFtrl
from models.optimizers.fused import FusedAdam
from models.optimizers.lazy_adam import LazyAdam
from models.optimizers.row_sparse import CowClip, RowAveraging
from models.optimizers.schedule import LearningRate, scale_rates

if TYPE_CHECKING:
    from models.zoo.base import CTRModel

__all__ = ["make_optimizer"]

_DENSE = {
    "adam": lambda rate: FusedAdam(rate, jit_compile=False),
    "adagrad": lambda rate: keras.optimizers.Adagrad(rate, jit_compile=False),
    "sgd": lambda rate: keras.optimizers.SGD(rate, jit_compile=False),
}
_SPARSE = {
    "adagrad": RowSparseAdagrad,
    "rowwise_adagrad": RowwiseAdagrad,
    "lazy_adam": LazyAdam,
    "ftrl": RowSparseFtrl,
}


def make_optimizer(
    config: TrainConfig,
    steps_per_epoch: int,
    model: CTRModel,
    strategy: tf.distribute.Strategy,
    click_pull: float = 1.0,
) -> CompositeOptimizer:
    """The composite optimizer of a training, built for its model.

    Args:
        config: validated.
        steps_per_epoch: at the configured batch size; the schedule ends after `max_epochs` of them.
        model: made in the strategy's scope; with `config.tables_on` host, inside `host_tables` too.
        strategy: over the replicas.
        click_pull: of the loss (`models.calibration.correction.click_pull`). A row-sparse optimizer
            gets the tables' gradients over it: L2, CowClip and accumulator are then in units of plain
            cross-entropy whatever the loss.
    """
    rates = scale_rates(config, steps_per_epoch)
    schedule = functools.partial(_scheduled, config, rates.warmup_steps, steps_per_epoch)

    def make_sparse() -> keras.optimizers.Optimizer:
        rate = schedule(rates.embedding)
        if config.embedding_optimizer == "adam":
            return keras.optimizers.Adam(rate, jit_compile=False)
        clip = CowClip(config.cowclip.ratio, config.cowclip.bound) if config.cowclip else None
        start = config.embedding_initial_accumulator
        own: dict[str, Any] = {} if start is None else {"initial_accumulator": start}
        return _SPARSE[config.embedding_optimizer](
            rate,
            gradient_scale=1.0 / click_pull,
            l2=rates.embedding_l2,
            clip=clip,
            averaging=RowAveraging() if config.averaging.kind != "none" else None,
            **own,
        )

    tables, on_host = model.sparse_variables, config.tables_on == "host"
    sparse = make_sparse() if on_host else None
    with strategy.scope():
        optimizer = CompositeOptimizer(
            _DENSE[config.optimizer](schedule(rates.dense)),
            make_sparse() if sparse is None else sparse,
            gradient_clip_norm=config.gradient_clip_norm,
            loss_scaling=config.precision == "float16",
        )
        mirrored = [v for v in model.trainable_variables if not (on_host and _is_in(v, tables))]
        optimizer.build(mirrored, [] if on_host else tables)
    if on_host:
        optimizer.build_host_tables(model.trainable_variables, tables)
    return optimizer


def _scheduled(
    config: TrainConfig, warmup_steps: int, steps_per_epoch: int, peak: float
) -> LearningRate | float:
    """The rate over the steps, `peak` at its highest."""
    if config.schedule.kind == "constant" and not warmup_steps:
        return peak
    return LearningRate(
        peak,
        kind=config.schedule.kind,
        warmup_steps=warmup_steps,
        total_steps=math.floor(config.max_epochs * steps_per_epoch),
        final_factor=config.schedule.final_factor,
    )


def _is_in(variable: tf.Variable, variables: list[tf.Variable]) -> bool:
    return any(variable is other for other in variables)
