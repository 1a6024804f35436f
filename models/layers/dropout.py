"""Dropout whose noise is a function of (seed, step, replica) and of nothing else.

`keras.layers.Dropout` draws from a generator whose state is not part of a checkpoint, so a training
that was killed and resumed would see other masks. Here the mask of a step can be drawn again at any
time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from models.keras2 import keras

__all__ = ["DropoutFactory", "StatelessDropout"]

DropoutFactory = Callable[[], keras.layers.Layer]


@keras.utils.register_keras_serializable("clickparity")
class StatelessDropout(keras.layers.Layer):
    """Inverted dropout: y = x * keep / (1 - rate) in training, y = x otherwise.

    keep = stateless_uniform(seed=(seed + 2^32 * replica, step)) >= rate. Two replicas draw
    different masks, two layers with different seeds too, and a step repeated after a restart the
    same one.

    Args:
        rate: share of the values set to zero, in [0, 1).
        seed: below 2^31; one per layer.
        step: the int64 step variable, shared by all dropouts of a model and advanced by its owner.
            None: the layer makes its own, `layer.step`.

    Shapes:
        any to the same.
    """

    def __init__(
        self, rate: float, seed: int, *, step: tf.Variable | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate must lie in [0, 1); got {rate}. 0 means no dropout.")
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed must lie in [0, 2^31); got {seed}.")
        self.rate, self.seed = rate, seed
        own_step = make_step_variable(self) if step is None else None
        # a function, lest Keras list the model's step among the weights of every dropout
        self._get_step = lambda: step if own_step is None else own_step

    @property
    def step(self) -> tf.Variable:
        """The counter that seeds the noise."""
        return self._get_step()

    def call(self, x: tf.Tensor, training: bool | tf.Tensor | None = None) -> tf.Tensor:
        """Drops values when training; the identity otherwise."""
        if self.rate == 0.0 or training is None or training is False:
            return x
        if isinstance(training, tf.Tensor):
            return tf.cond(tf.cast(training, tf.bool), lambda: self._drop(x), lambda: x)
        return self._drop(x) if training else x

    def _drop(self, x: tf.Tensor) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        replica_id = 0 if replica is None else replica.replica_id_in_sync_group
        layer_seed = tf.cast(replica_id, tf.int64) * 2**32 + self.seed
        noise = tf.random.stateless_uniform(
            tf.shape(x), seed=tf.stack([layer_seed, tf.cast(self.step, tf.int64)])
        )
        return tf.where(noise >= self.rate, x / (1.0 - self.rate), tf.zeros_like(x))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments but the step, which belongs to the model."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def make_step_variable(owner: keras.layers.Layer) -> tf.Variable:
    """An int64 step counter at 0, saved with the owner and the same on every replica."""
    return owner.add_weight(
        name="dropout_step",
        shape=(),
        dtype=tf.int64,
        initializer="zeros",
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
