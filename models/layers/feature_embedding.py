"""One fused embedding table for every categorical and sequence feature, looked up by one gather."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from models.config.embedding import NO_COMPRESSION, CompressionConfig, EmbeddingConfig
from models.keras2 import keras
from models.layers.embedding_rows import ColumnRows, FieldRows, field_rows
from models.layers.host_tables import make_host_table, on_host
from pipeline.errors import ConfigError
from pipeline.records.encoded import MISSING_ID, EncodedSpec

__all__ = ["FeatureEmbedding", "FieldRows", "field_rows", "make_embedding"]

_INITIALIZERS = {
    "uniform": lambda scale: keras.initializers.RandomUniform(-scale, scale),
    "normal": lambda scale: keras.initializers.RandomNormal(stddev=scale),
    "truncated_normal": lambda scale: keras.initializers.TruncatedNormal(stddev=scale),
}


class _InPlace(keras.initializers.Initializer):
    """The same numbers, in the memory of one table.

    Called eagerly, Keras' initializers hold three at once: the random numbers, scaled, and shifted.
    """

    def __init__(self, initializer: keras.initializers.Initializer) -> None:
        self._initializer = initializer

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        """[rows, dim]; kwargs are Keras' own."""
        make = tf.function(lambda: self._initializer(shape, dtype=dtype, **kwargs), autograph=False)
        return make()


def _on_this_replica(table: tf.Variable) -> tf.Variable:
    """The replica's own copy of a variable that a strategy may have mirrored.

    tf.gather reads single rows of a plain variable, but the whole table of a mirrored one, which has
    no `sparse_read`: a copy of the table in every step.
    """
    copies = tf.distribute.get_strategy().experimental_local_results(table)
    context = tf.distribute.get_replica_context()
    if context is None or len(copies) == 1:  # not mirrored, or on the host
        return copies[0]
    return copies[int(tf.get_static_value(context.replica_id_in_sync_group))]


@keras.utils.register_keras_serializable(package="clickparity")
class FeatureEmbedding(keras.layers.Layer):
    """Embeds all categorical and sequence features from one table with one gather.

    Row of a feature's id = the feature's offset + id; where a huge vocabulary is compressed, its
    remainder, and with quotients a second row, in the same gather. A step's gradient is therefore
    one IndexedSlices over the rows that the batch touched, which is what keeps the cost of an update
    independent of the vocabulary. L2 on touched rows is the optimizer's (TrainConfig.embedding_l2).

    Example:
        >>> layer = FeatureEmbedding(spec, 16)
        >>> fields = layer({"ids": tf.constant([[3, 1]])})  # [1, 2, 16]

    Args:
        spec: the encoded tensors; fields are its categoricals in order, then its sequences.
        dim: width of every embedding.
        initializer: Keras initializer of the table, by name, config or object.
        compression: of features with huge vocabularies; None: one row an id.

    Raises:
        ConfigError: when dim < 1, or as `field_rows` says.
    """

    def __init__(
        self,
        spec: EncodedSpec,
        dim: int,
        *,
        initializer: Any = "uniform",
        compression: CompressionConfig | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim < 1:
            raise ConfigError("an embedding has at least 1 dimension", dim, "Try 16.")
        self.spec = spec
        self.dim = dim
        self.initializer = keras.initializers.get(initializer)
        self.compression = CompressionConfig.model_validate(compression or NO_COMPRESSION)
        self.rows = field_rows(spec, self.compression)
        self.num_rows = sum({r.offset: r.num_rows for r in self.rows.values()}.values())
        columns = [self.rows[feature.name] for feature in spec.categorical]
        bags = {s.name: [self.rows[s.name]] * s.max_length for s in spec.sequences}
        self._columns = ColumnRows([*columns, *(rows for bag in bags.values() for rows in bag)])
        self._columns_of = {name: ColumnRows(bag) for name, bag in bags.items()}
        self._table: tf.Variable | None = None

    @property
    def num_fields(self) -> int:
        """Categoricals and sequences together: the second axis of the output."""
        return len(self.spec.categorical) + len(self.spec.sequences)

    @property
    def tables(self) -> list[tf.Variable]:
        """The embedding tables, for the row-sparse optimizer: [] before the layer is built."""
        return [] if self._table is None else [self._table]

    def build(self, input_shape: Any) -> None:
        """Makes the table, [num_rows, dim]; none when the spec has no categorical feature."""
        if self.num_rows:
            self._table = self.add_weight(
                name="table",
                shape=(self.num_rows, self.dim),
                initializer=_InPlace(self.initializer),
                trainable=True,
                dtype=tf.float32,
                experimental_autocast=False,  # the rows are cast, not the table
                **({"getter": make_host_table} if on_host() else {}),
            )
        super().build(input_shape)

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """The embedding of every field.

        Args:
            inputs: an encoded batch; reads "ids" [batch, F] and "sequence/<name>" [batch, L].

        Returns:
            [batch, num_fields, dim] in the compute dtype. A sequence is the mean over its ids that
            are not 0; an empty one is the zero vector.
        """
        if not self.num_fields:
            batch_size = tf.shape(next(iter(inputs.values())))[0]
            return tf.zeros([batch_size, 0, self.dim], self.compute_dtype)
        num_ids = len(self.spec.categorical)
        ids = [inputs["ids"]] if num_ids else []
        ids += [inputs[f"sequence/{sequence.name}"] for sequence in self.spec.sequences]
        # [batch, F + sum of L, dim]
        embedded = self._lookup(ids[0] if len(ids) == 1 else tf.concat(ids, axis=1), self._columns)
        if not self.spec.sequences:
            return embedded
        widths = [num_ids, *(s.max_length for s in self.spec.sequences)]
        fields, *bags = tf.split(embedded, widths, axis=1)
        pooled = [
            self._mean(bag, inputs[f"sequence/{sequence.name}"])
            for bag, sequence in zip(bags, self.spec.sequences, strict=True)
        ]
        return tf.concat([fields, *pooled], axis=1)

    def embed_sequence(
        self, inputs: dict[str, tf.Tensor], name: str
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A sequence unpooled, from the same table.

        Args:
            inputs: an encoded batch.
            name: a sequence feature of the spec.

        Returns:
            ([batch, L, dim] in the compute dtype, bool mask [batch, L] of the ids that are not 0).

        Raises:
            KeyError: when the spec holds no such sequence.
        """
        self._maybe_build(inputs)
        embedded = self._lookup(inputs[f"sequence/{name}"], self._columns_of[name])
        return embedded, self._mask(inputs, name)

    @staticmethod
    def _mask(inputs: dict[str, tf.Tensor], name: str) -> tf.Tensor:
        return tf.not_equal(inputs[f"sequence/{name}"], MISSING_ID)

    def _lookup(self, ids: tf.Tensor, columns: ColumnRows) -> tf.Tensor:
        embedded = tf.gather(_on_this_replica(self._table), columns.rows_of(ids))
        return columns.combine(tf.cast(embedded, self.compute_dtype))

    @staticmethod
    def _mean(bag: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        mask = tf.cast(tf.not_equal(ids, MISSING_ID), bag.dtype)[:, :, tf.newaxis]
        count = tf.reduce_sum(mask, axis=1, keepdims=True)  # [batch, 1, 1]
        return tf.reduce_sum(bag * mask, axis=1, keepdims=True) / tf.maximum(count, 1)

    def get_config(self) -> dict[str, Any]:
        """Everything that the constructor takes."""
        return {
            **super().get_config(),
            "spec": json.loads(self.spec.to_json()),
            "dim": self.dim,
            "initializer": keras.initializers.serialize(self.initializer),
            "compression": self.compression.model_dump(mode="json"),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureEmbedding:
        """The layer that `get_config` described."""
        config = dict(config)
        return cls(EncodedSpec.from_json(json.dumps(config.pop("spec"))), **config)


def make_embedding(
    spec: EncodedSpec, dim: int, config: EmbeddingConfig, *, name: str
) -> FeatureEmbedding:
    """The embedding that a config describes.

    Args:
        spec: the encoded features.
        dim: width of every embedding.
        config: initializer and compression.
        name: of the layer.
    """
    return FeatureEmbedding(
        spec,
        dim,
        initializer=_INITIALIZERS[config.initializer](config.scale),
        compression=config.compression,
        name=name,
    )
