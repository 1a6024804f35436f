"""DLRM's interaction: the dot products of all pairs of vectors, on TFRS `DotInteraction`."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# isort: split
from models.keras2 import keras  # before TFRS, which refuses Keras 3 when it is imported

# isort: split
import tensorflow_recommenders as tfrs

__all__ = ["PairwiseDots"]


class PairwiseDots(keras.layers.Layer):
    """z_ij = <v_i, v_j> for every i > j, and i = j with self_interaction.

    TFRS picks the lower triangle with a boolean mask, whose size is known only at run time; here
    TFRS leaves the full matrix (`skip_gather`) and a constant list of positions picks it.

    Args:
        self_interaction: also take <v_i, v_i>.

    Shapes:
        [batch, vectors, dim] to [batch, pairs], in the order (1, 0), (2, 0), (2, 1), (3, 0), ...

    Source:
        Naumov et al. 2019, "Deep Learning Recommendation Model", arXiv 1906.00091.
    """

    def __init__(self, *, self_interaction: bool = False, name: str | None = None) -> None:
        super().__init__(name=name)
        self.self_interaction = self_interaction
        self.interaction = tfrs.layers.feature_interaction.DotInteraction(
            self_interaction=self_interaction, skip_gather=True
        )

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """The dot products [batch, pairs]."""
        count = vectors.shape[1]
        rows, columns = np.tril_indices(count, k=0 if self.self_interaction else -1)
        products = self.interaction(tf.unstack(vectors, axis=1))  # [batch, vectors * vectors]
        return tf.gather(products, rows * count + columns, axis=1)
