"""Batch norm's moving statistics, computed anew for the weights as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import tensorflow as tf

from models.keras2 import keras
from models.layers.dropout import StatelessDropout
from models.training.step import Batch
from pipeline.records.encoded import model_inputs

if TYPE_CHECKING:
    from models.zoo.base import CTRModel

__all__ = ["follow_number_of_steps", "reestimate_batch_statistics"]

_WINDOWS = 5  # moving averages' windows in an epoch: e^-5 = .7 % of the start is left after it


def follow_number_of_steps(model: CTRModel, steps: int) -> None:
    """Bounds the momentum of every batch norm by 1 - 5 / steps, at least 0.

    Momentum .99 over 42 steps leaves 66 % of the moving statistics at their start.
    """
    for norm in _batch_norms(model):
        norm.momentum = min(norm.momentum, max(0.0, 1.0 - _WINDOWS / steps))


def _batch_norms(model: CTRModel) -> list[keras.layers.BatchNormalization]:
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def reestimate_batch_statistics(model: CTRModel, batches: Iterable[Batch]) -> int:
    """Replaces moving averages, which lag behind the weights, by population statistics.

    mean = E[batch mean]; variance = E[batch variance] + Var[batch mean] (law of total variance),
    over the given batches in training mode without dropout, which inference has none of either:
    "precise BN", Wu & Johnson 2021, arXiv 2105.07576, section 3.

    Args:
        model: with or without batch norm; without, nothing happens.
        batches: encoded batches of the size of training's, at least one.

    Returns:
        The number of batches used; 0 for a model without batch norm.
    """
    norms = _batch_norms(model)
    if not norms:
        return 0
    strategy = model.distribute_strategy
    count = 0
    sums = [[tf.zeros(norm.moving_mean.shape)] * 3 for norm in norms]
    with _forgetful(model, norms):

        @tf.function(reduce_retracing=True)
        def forward(inputs: Batch) -> None:
            # Every replica sees the same rows, so their statistics agree.
            strategy.run(lambda: model(inputs, training=True))

        for batch in batches:
            forward(model_inputs(batch))
            count += 1
            for index, norm in enumerate(norms):
                mean = tf.convert_to_tensor(norm.moving_mean)
                variance = tf.convert_to_tensor(norm.moving_variance)
                parts = (mean, variance, tf.square(mean))
                sums[index] = [s + p for s, p in zip(sums[index], parts, strict=True)]
    for norm, (mean_sum, variance_sum, square_sum) in zip(norms, sums, strict=True):
        if count:
            mean = mean_sum / count
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(
                variance_sum / count + tf.maximum(square_sum / count - tf.square(mean), 0.0)
            )
    return count


@contextlib.contextmanager
def _forgetful(model: CTRModel, norms: list[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Moving statistics become the last batch's own, and dropout passes everything."""
    dropouts = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, StatelessDropout)
    ]
    momenta, rates = [norm.momentum for norm in norms], [layer.rate for layer in dropouts]
    try:
        for norm in norms:
            norm.momentum = 0.0
        for layer in dropouts:
            layer.rate = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for layer, rate in zip(dropouts, rates, strict=True):
            layer.rate = rate
