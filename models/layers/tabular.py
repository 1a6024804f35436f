"""Features as a model wants them: one flat vector, one vector per field, or a weighted sum.

Numeric features are not normalized with the embeddings: a numeric field is x * v with a learned v,
and a normalization over its dim would keep the sign of x and lose its size.
"""

from __future__ import annotations

import tensorflow as tf

from models.config.embedding import DEFAULT_EMBEDDING, EmbeddingConfig
from models.keras2 import keras
from models.layers.feature_embedding import FeatureEmbedding, make_embedding
from models.layers.mlp import no_layer
from models.layers.normalization import NormFactory
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec

__all__ = ["EmbeddedFeatures", "FieldFeatures", "FlatFeatures", "LinearTerm", "check_has_features"]

Inputs = dict[str, tf.Tensor]


def check_has_features(spec: EncodedSpec) -> None:
    """Refuses a spec without any numeric, categorical or sequence feature.

    Raises:
        ConfigError: nothing to learn from.
    """
    if not (spec.numeric or spec.categorical or spec.sequences):
        raise ConfigError(
            "a model needs at least one numeric, categorical or sequence feature",
            "an encoded data set with none",
            "Declare features in the schema and preprocess again.",
        )


def _embedding(
    spec: EncodedSpec, dim: int, config: EmbeddingConfig, name: str
) -> FeatureEmbedding | None:
    has_ids = bool(spec.categorical or spec.sequences)
    return make_embedding(spec, dim, config, name=name) if has_ids else None


class EmbeddedFeatures(keras.layers.Layer):
    """Base of the layers that embed all features of a row, and normalize the embeddings.

    Args:
        spec: the encoded features.
        dim: width of an embedding.
        norm: makes the normalization of the embeddings [batch, fields, dim].
        embedding: initializer and compression of the table.

    Raises:
        ConfigError: as `check_has_features` says.
    """

    def __init__(
        self,
        spec: EncodedSpec,
        dim: int,
        *,
        norm: NormFactory = no_layer,
        embedding: EmbeddingConfig = DEFAULT_EMBEDDING,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        check_has_features(spec)
        self.num_numeric, self.dim = len(spec.numeric), dim
        self.embedding = _embedding(spec, dim, embedding, "embedding")
        self.norm = norm()
        self.num_embedded = 0 if self.embedding is None else self.embedding.num_fields


class FlatFeatures(EmbeddedFeatures):
    """All features of a row side by side: raw numerics, then every field's embedding.

    The arguments are `EmbeddedFeatures`' own.

    Shapes:
        inputs to [batch, D + F * dim], F counting sequences (pooled) too.
    """

    @property
    def embedded_width(self) -> int:
        """Width of all embeddings together."""
        return self.num_embedded * self.dim

    def call(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        """The row as one vector."""
        parts = []
        if self.num_numeric:
            parts.append(tf.cast(inputs["numeric"], self.compute_dtype))
        if self.embedding is not None:
            embedded = self.norm(self.embedding(inputs), training=training)  # [batch, fields, dim]
            parts.append(tf.reshape(embedded, [-1, self.embedded_width]))
        return tf.concat(parts, axis=1)


class FieldFeatures(EmbeddedFeatures):
    """One vector per field: x_d * v_d for numeric field d, then each categorical's embedding.

    The arguments are `EmbeddedFeatures`' own.

    Shapes:
        inputs to [batch, D + F, dim], F counting sequences (pooled) too.

    Source:
        Song et al. 2019, "AutoInt", section 4.3 (numeric fields), arXiv 1810.11921.
    """

    @property
    def num_fields(self) -> int:
        """Numerics and embedded fields together: the second axis of the output."""
        return self.num_numeric + self.num_embedded

    def build(self, input_shape: dict[str, tf.TensorShape]) -> None:
        """Makes v [D, dim]."""
        if self.num_numeric:
            self.numeric_vectors = self.add_weight(
                name="numeric_vectors",
                shape=(self.num_numeric, self.dim),
                initializer=keras.initializers.RandomNormal(stddev=0.05),
            )
        super().build(input_shape)

    def call(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        """The row as [batch, fields, dim]."""
        parts = []
        if self.num_numeric:
            numeric = tf.cast(inputs["numeric"], self.compute_dtype)
            parts.append(numeric[:, :, tf.newaxis] * self.numeric_vectors)  # [batch, D, dim]
        if self.embedding is not None:
            parts.append(self.norm(self.embedding(inputs), training=training))
        return tf.concat(parts, axis=1)


class LinearTerm(keras.layers.Layer):
    """The first-order term: sum of one weight per id, plus w . numeric + b.

    Args:
        spec: the encoded features.
        embedding: initializer and compression of the table of weights.

    Shapes:
        inputs to [batch, 1].
    """

    def __init__(
        self,
        spec: EncodedSpec,
        *,
        embedding: EmbeddingConfig = DEFAULT_EMBEDDING,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        check_has_features(spec)
        self.weights_of_ids = _embedding(spec, 1, embedding, "weights_of_ids")
        self.weights_of_numerics = (
            keras.layers.Dense(1, use_bias=False, name="weights_of_numerics")
            if spec.numeric
            else None
        )

    def build(self, input_shape: dict[str, tf.TensorShape]) -> None:
        """Makes the bias b [1]."""
        self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Inputs) -> tf.Tensor:
        """The linear logit [batch, 1]."""
        terms = []
        if self.weights_of_ids is not None:
            terms.append(tf.reduce_sum(self.weights_of_ids(inputs), axis=1))  # [batch, 1]
        if self.weights_of_numerics is not None:
            terms.append(self.weights_of_numerics(inputs["numeric"]))
        return tf.add_n(terms) + self.bias
