"""How DSTN sums up a user's auxiliary ads: pooling, self-attention, attention by the target ad."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from models.keras2 import keras

__all__ = ["MAX_INTERACTIVE_SCORE", "AdAggregation"]

# The paper's weights are a bare exp; a cap of exp(10) = 22,026 keeps a wild score finite.
MAX_INTERACTIVE_SCORE = 10.0


class AdAggregation(keras.layers.Layer):
    """One vector for a row's auxiliary ads of one kind.

    pooling (DSTN-P): sum_i x_i
    self_attention (DSTN-S): sum_i a_i x_i, a = softmax_i h . relu(W x_i + b)
    interactive (DSTN-I): sum_i a_i x_i, a_i = exp(h . relu(W [x_t, x_i] + b1) + b2)

    The interactive weights are not normalized over the ads: an ad keeps its weight whatever the
    others are, and a row whose ads all say nothing about the target gets little of any. Scores are
    capped at `MAX_INTERACTIVE_SCORE`.

    Args:
        aggregation: which of the three.
        attention_units: length of h.

    Shapes:
        target [batch, T], ads [batch, L, A], mask [batch, L] to [batch, A]; no ads give zeros.

    Source:
        Ouyang et al. 2019, "Deep Spatio-Temporal Neural Networks for CTR Prediction", arXiv
        1906.03776.
    """

    def __init__(
        self,
        aggregation: Literal["pooling", "self_attention", "interactive"],
        attention_units: int,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.aggregation = aggregation
        if aggregation == "pooling":
            return
        self.hidden = keras.layers.Dense(attention_units, activation="relu", name="hidden")
        # softmax takes no notice of a constant, so only the interactive scores have a bias
        self.score = keras.layers.Dense(1, use_bias=aggregation == "interactive", name="score")

    def call(self, target: tf.Tensor, ads: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """The ads as one vector [batch, A]."""
        present = tf.cast(mask, ads.dtype)[:, :, tf.newaxis]  # [batch, L, 1]
        return tf.reduce_sum(ads * self.weights_of_ads(target, ads, present), axis=1)

    def weights_of_ads(self, target: tf.Tensor, ads: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """The weight of each ad [batch, L, 1]; 0 for padding.

        Args:
            target: [batch, T].
            ads: [batch, L, A].
            present: 1 for an ad, 0 for padding, [batch, L, 1].
        """
        if self.aggregation == "pooling":
            return present
        if self.aggregation == "self_attention":
            scores = self.score(self.hidden(ads))
            # the second product makes a row without ads all zeros instead of uniform
            return tf.nn.softmax(scores + (present - 1.0) * 1e9, axis=1) * present
        repeated = tf.repeat(target[:, tf.newaxis, :], tf.shape(ads)[1], axis=1)
        scores = self.score(self.hidden(tf.concat([repeated, ads], axis=2)))
        return tf.exp(tf.minimum(scores, MAX_INTERACTIVE_SCORE)) * present
