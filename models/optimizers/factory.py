"""From a config to the optimizer that it describes."""

from __future__ import annotations

from models.keras2 import keras
from models.optimizers.composite import CompositeOptimizer
from models.optimizers.fused import FusedAdam
from models.optimizers.row_sparse import (
    CowClip,
    LazyAdam,
    RowSparseAdagrad,
    RowSparseFtrl,
    RowwiseAdagrad,
)
from models.optimizers.schedule import LearningRate, scale_rates
from models.train_config import TrainConfig

__all__ = ["make_optimizer"]

_SPARSE = {
    "adagrad": RowSparseAdagrad,
    "rowwise_adagrad": RowwiseAdagrad,
    "lazy_adam": LazyAdam,
    "ftrl": RowSparseFtrl,
}


def make_optimizer(config: TrainConfig, steps_per_epoch: int) -> CompositeOptimizer:
    """The composite optimizer of a training. Call it inside the strategy's scope.

    Args:
        config: validated.
        steps_per_epoch: at the configured batch size; the schedule ends after `epochs` of them.
    """
    rates = scale_rates(config, steps_per_epoch)

    def schedule(peak: float) -> LearningRate | float:
        if config.schedule.kind == "constant" and not rates.warmup_steps:
            return peak
        return LearningRate(
            peak,
            kind=config.schedule.kind,
            warmup_steps=rates.warmup_steps,
            total_steps=config.epochs * steps_per_epoch,
            final_factor=config.schedule.final_factor,
        )

    dense_rate, embedding_rate = schedule(rates.dense), schedule(rates.embedding)
    dense = {
        "adam": lambda: FusedAdam(dense_rate, jit_compile=False),
        "adagrad": lambda: keras.optimizers.Adagrad(dense_rate, jit_compile=False),
        "sgd": lambda: keras.optimizers.SGD(dense_rate, jit_compile=False),
    }[config.optimizer]()
    if config.embedding_optimizer == "adam":
        sparse = keras.optimizers.Adam(embedding_rate, jit_compile=False)
    else:
        clip = config.cowclip and CowClip(config.cowclip.ratio, config.cowclip.bound)
        sparse = _SPARSE[config.embedding_optimizer](
            embedding_rate, l2=rates.embedding_l2, clip=clip or None
        )
    return CompositeOptimizer(dense, sparse, gradient_clip_norm=config.gradient_clip_norm)
