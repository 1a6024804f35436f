"""The second-order term of a factorization machine."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras

__all__ = ["FactorizationMachine"]


class FactorizationMachine(keras.layers.Layer):
    """Sum of the dot products of all pairs of fields, in linear time.

    sum_{i<j} <v_i, v_j> = 1/2 sum_dim ((sum_i v_i)^2 - sum_i v_i^2)

    Shapes:
        [batch, fields, dim] to [batch, 1].

    Source:
        Rendle 2010, "Factorization Machines", lemma 3.1.
    """

    def call(self, fields: tf.Tensor) -> tf.Tensor:
        """The pairwise logit [batch, 1]."""
        square_of_sum = tf.square(tf.reduce_sum(fields, axis=1))  # [batch, dim]
        sum_of_squares = tf.reduce_sum(tf.square(fields), axis=1)
        return 0.5 * tf.reduce_sum(square_of_sum - sum_of_squares, axis=1, keepdims=True)
