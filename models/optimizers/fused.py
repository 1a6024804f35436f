"""Dense Adam by TensorFlow's fused kernel: one pass over the weights instead of fifteen."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.keras2 import keras

__all__ = ["FusedAdam"]


@keras.utils.register_keras_serializable(package="clickparity")
class FusedAdam(keras.optimizers.Adam):
    """Adam (Kingma & Ba 2015) as tf_keras' own, but that 1 - beta_2 is taken in float32
    (off by 5e-5 of itself); state and checkpoints are the same.

    m += (1 - b1)(g - m); v += (1 - b2)(g^2 - v);
    w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon). IndexedSlices and AMSGrad go the way
    of tf_keras.
    """

    def update_step(self, gradient: Any, variable: tf.Variable) -> None:
        """Updates one variable."""
        if isinstance(gradient, tf.IndexedSlices) or self.amsgrad:
            super().update_step(gradient, variable)
            return
        index = self._index_dict[self._var_key(variable)]
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].handle,
            v=self._velocities[index].handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(self.learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
