"""FeatureTransform: THE transform. Beam encodes with it, and the exported SavedModel contains it.

Skew between training and serving comes from having two implementations; here there is one graph.

* Numbers (float32 [batch, N], NaN = missing) are worked on as one matrix in float64 and cast last: in
  float32, log1p of one row differs from the vectorised one by a bit on some machines.
* Texts (string [batch, T], empty = missing) become ids by one hash, one lookup and one remainder for all
  features together. The key of a value is Fingerprint64(value) XOR a constant of its feature; the table
  maps keys to ids. It therefore needs 16 bytes a value instead of the text, nothing breaks on a line
  break in a value, and hashed buckets cost nothing more. Two vocabulary values with equal keys are
  detected when the transform is built (and the constant changed); an unseen value meets a vocabulary
  key with probability |V| / 2^63.

Ids of a feature: 0 missing, 1 .. num_oov_buckets unseen, then the vocabulary in its order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import tensorflow as tf

from pipeline.schema import (
    CROSS_SEPARATOR,
    CategoricalFeature,
    CrossFeature,
    DatetimeFeature,
    FeatureSchema,
    ImageColumn,
    NumericFeature,
    SequenceColumn,
    feature_columns,
    vocabulary_features,
    vocabulary_owner,
)
from pipeline.sources.columns import code_columns
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.statistics.vocabulary import one_array
from pipeline.transform import datetime_parts
from pipeline.transform.images import decode_images, decode_images_traced
from pipeline.transform.numeric import NumericConstants, encode_buckets, encode_numeric
from pipeline.transform.raw_rows import number_matrix, text_matrix
from pipeline.transform.spec import encoded_spec
from pipeline.transform.text_rules import canonical, split_items
from pipeline.transform.vocabulary_table import VocabularyTable
from pipeline.values import column_rules

__all__ = ["FeatureTransform", "encoded_spec"]


class FeatureTransform(tf.Module):
    """Raw columns -> encoded tensors (see `pipeline.records.encoded`), in one graph.

    Args:
        schema: a resolved schema.
        statistics: of the training rows.

    Attributes:
        spec: names, order and sizes of the encoded tensors.
    """

    def __init__(self, schema: FeatureSchema, statistics: FeatureStatistics) -> None:
        super().__init__(name="feature_transform")
        self.schema = schema
        self._rules = column_rules(schema)
        self.spec = encoded_spec(schema, statistics)
        self._numeric = NumericConstants.of(schema, statistics)
        self._buckets = [
            (
                schema.input_numbers.index(f.column),
                f,
                np.array(statistics.numbers["numeric"][f.name]["bucket_boundaries"], np.float64),
            )
            for f in schema.features
            if isinstance(f, NumericFeature) and f.quantile_buckets
        ]
        self._plain = [f for f in schema.features if isinstance(f, CategoricalFeature)]
        self._crosses = [f for f in schema.features if isinstance(f, CrossFeature)]
        self._singles: list[CategoricalFeature | CrossFeature] = [*self._plain, *self._crosses]
        self._sequences = [f for f in schema.features if isinstance(f, SequenceColumn)]
        self._datetimes = [f for f in schema.features if isinstance(f, DatetimeFeature)]
        self._images = [f for f in schema.features if isinstance(f, ImageColumn)]
        self._order = self._id_order()
        self._build_table(statistics)

    # --------------------------------------------------------------- construction

    def _build_table(self, statistics: FeatureStatistics) -> None:
        """One table for every vocabulary, and the constants per id column."""
        owners = [vocabulary_owner(f) for f in (*self._singles, *self._sequences)]
        features = vocabulary_features(self.schema.features)
        values, buckets = {}, {}
        for name in dict.fromkeys(owners):
            owner = features[name]
            buckets[name] = owner.num_oov_buckets
            kept = statistics.vocabularies[name].values if owner.max_vocab_size else None
            values[name] = pa.array([], pa.binary()) if kept is None else kept
        # The empty text is a key anyway; a cross is made of texts that are canonical already.
        aliases = {
            f.name: self._rules[f.column].aliases
            for f in self.schema.features
            if f.name in values and not isinstance(f, CrossFeature)
        }
        self._table = VocabularyTable(values, buckets, aliases)
        width = [1] * len(self._singles) + [f.max_length for f in self._sequences]
        columns = [name for name, times in zip(owners, width, strict=True) for _ in range(times)]
        self._salt_of_column, self._buckets_of_column = self._table.constants(columns)

    def _id_order(self) -> np.ndarray:
        """Permutation from (singles, datetime parts, buckets) to schema order."""
        built = [f.name for f in self._singles]
        built += [f"{f.name}_{part}" for f in self._datetimes for part in f.parts]
        built += [f.name for _, f, _ in self._buckets]
        return np.array([built.index(f.name) for f in self.spec.categorical], np.int32)

    # --------------------------------------------------------------- encoding

    def __call__(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Raw columns by name (float32 [batch], string [batch]) -> encoded tensors."""
        numbers, texts = self.stack(raw)
        return self.encode(numbers, texts, {n: raw[n] for n in self.schema.input_images})

    def stack(self, raw: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Raw columns by name -> the two matrices of `encode`."""
        some = next(iter(raw.values()))
        numbers = [raw[n] for n in self.schema.input_numbers]
        texts = [raw[n] for n in self.schema.input_texts]
        return (
            tf.stack(numbers, axis=1) if numbers else tf.zeros([tf.shape(some)[0], 0], tf.float32),
            tf.stack(texts, axis=1) if texts else tf.zeros([tf.shape(some)[0], 0], tf.string),
        )

    def encode(
        self,
        numbers: tf.Tensor,
        texts: tf.Tensor,
        images: Mapping[str, tf.Tensor] | None = None,
    ) -> dict[str, tf.Tensor]:
        """The whole transform on stacked columns. Call it inside a `tf.function` only.

        Args:
            numbers: float32 [batch, N], columns as `schema.input_numbers`; NaN or infinite = missing.
            texts: string [batch, T], columns as `schema.input_texts`; empty = missing.
            images: string [batch] of encoded images by name, for a schema with images.

        Returns:
            `numeric`, `ids`, `sequence/<name>`, `image/<name>` as in `pipeline.records.encoded`.
        """
        encoded = self._encode_columns(numbers, texts, self.schema.input_texts)
        for image in self._images:
            contents = (images or {})[image.column]
            encoded[f"image/{image.name}"] = decode_images(contents, image)
        return encoded

    def _encode_columns(
        self,
        numbers: tf.Tensor,
        texts: tf.Tensor,
        columns: tuple[str, ...],
        plain_ids: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Everything but the images.

        The widths are checked in the graph: TF Serving holds no request against a signature's shapes, and a
        text matrix of one column would be broadcast to all features, a number too many be ignored.

        Args:
            numbers: float32 [batch, N].
            texts: string [batch, len(columns)].
            columns: the names of the columns of `texts`.
            plain_ids: ids of the plain categorical features, where they are known already.
        """
        numbers = tf.ensure_shape(numbers, [None, len(self.schema.input_numbers)])
        texts = tf.ensure_shape(texts, [None, len(columns)])
        wide = tf.cast(numbers, tf.float64)
        encoded = {"numeric": encode_numeric(wide, self._numeric)}
        ids, sequences = self._encode_texts(texts, columns, plain_ids)
        parts = [ids, *(self._encode_datetime(texts, columns, f) for f in self._datetimes)]
        parts += [
            encode_buckets(
                wide[:, column], feature, boundaries, self._rules[feature.column].numeric_markers
            )[:, None]
            for column, feature, boundaries in self._buckets
        ]
        joined = tf.concat(parts, axis=1)
        if not np.array_equal(self._order, np.arange(len(self._order))):
            joined = tf.gather(joined, self._order, axis=1)
        encoded["ids"] = joined
        for feature, values in zip(self._sequences, sequences, strict=True):
            encoded[f"sequence/{feature.name}"] = values
        return encoded

    def _encode_texts(
        self, texts: tf.Tensor, columns: tuple[str, ...], plain_ids: tf.Tensor | None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """String [batch, T] -> ids int32 [batch, singles] and a list of int32 [batch, L]."""
        known = 0 if plain_ids is None else len(self._plain)
        singles = self._singles[known:]
        if tuple(f.column for f in self._plain) == columns and singles == self._plain:
            values = [texts]
        else:
            values = [self._single(texts, columns, f) for f in singles]
        values += [self._split(texts, columns, f) for f in self._sequences]
        if values:
            merged = tf.concat(values, axis=1)  # [batch, singles + sum of L]
            salts, buckets = self._salt_of_column[known:], self._buckets_of_column[known:]
            ids = self._table.lookup(merged, salts, buckets)
        else:
            ids = tf.zeros([tf.shape(texts)[0], 0], tf.int32)
        sizes = [len(singles), *(f.max_length for f in self._sequences)]
        single, *sequences = tf.split(ids, sizes, axis=1)
        return (single if plain_ids is None else tf.concat([plain_ids, single], axis=1)), sequences

    def _single(
        self, texts: tf.Tensor, columns: tuple[str, ...], feature: CategoricalFeature | CrossFeature
    ) -> tf.Tensor:
        """String [batch, 1] of one feature; a cross joins its columns, missing when one is."""
        if isinstance(feature, CategoricalFeature):
            column = columns.index(feature.column)
            return texts[:, column : column + 1]
        parts = [canonical(texts[:, columns.index(c)], self._rules[c]) for c in feature.of]
        joined = tf.strings.join(parts, separator=CROSS_SEPARATOR)
        present = tf.reduce_all(tf.stack([p != "" for p in parts]), axis=0)
        return tf.where(present, joined, "")[:, None]

    def _split(
        self, texts: tf.Tensor, columns: tuple[str, ...], feature: SequenceColumn
    ) -> tf.Tensor:
        """String [batch, L], left-aligned, padded with the empty text."""
        column = texts[:, columns.index(feature.column)]
        rule = dataclasses.replace(self._rules[feature.column], separator=feature.separator)
        items = split_items(column, rule)
        limit = feature.max_length
        items = items[:, -limit:] if feature.keep == "last" else items[:, :limit]
        return items.to_tensor(default_value="", shape=[None, limit])

    def _encode_datetime(
        self, texts: tf.Tensor, columns: tuple[str, ...], feature: DatetimeFeature
    ) -> tf.Tensor:
        """int32 [batch, parts]."""
        column = texts[:, columns.index(feature.column)]
        bounded = self.schema.rules > 1
        return datetime_parts.encode(column, feature.format, feature.parts, bounded=bounded)

    # --------------------------------------------------------------- eager door for Beam

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.float32),
            tf.TensorSpec([None, None], tf.string),
        ]
    )
    def _encode_matrices(self, numbers: tf.Tensor, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._encode_columns(numbers, texts, self.schema.input_texts)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.int64),
        ]
    )
    def _lookup_distinct(
        self, values: tf.Tensor, salts: tf.Tensor, buckets: tf.Tensor
    ) -> tf.Tensor:
        return self._table.lookup(values, salts, buckets)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.float32),
            tf.TensorSpec([None, None], tf.string),
            tf.TensorSpec([None, None], tf.int32),
        ]
    )
    def _encode_around(
        self, numbers: tf.Tensor, texts: tf.Tensor, plain_ids: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        plain_ids = tf.ensure_shape(plain_ids, [None, len(self._plain)])
        return self._encode_columns(numbers, texts, self._other_columns, plain_ids)

    @property
    def _other_columns(self) -> tuple[str, ...]:
        """Text columns that something else than a plain categorical feature reads."""
        others = (*self._crosses, *self._sequences, *self._datetimes)
        return tuple(dict.fromkeys(c for f in others for c in feature_columns(f)))

    def encode_table(self, table: pa.Table) -> dict[str, np.ndarray]:
        """An Arrow table of raw columns -> encoded tensors: how Beam encodes.

        A block repeats its values, so a categorical column is looked up once a distinct value: the
        same lookup op on the same bytes, an eighth of the cells.
        """
        plain_ids = np.empty((table.num_rows, len(self._plain)), np.int32)
        columns = tuple(dict.fromkeys(f.column for f in self._plain))
        coded_table = code_columns(table, columns)
        coded = [one_array(coded_table[f.column]) for f in self._plain]
        if coded:
            values = [c.dictionary.to_numpy(zero_copy_only=False) for c in coded]
            sizes = [len(v) for v in values]
            count = len(self._plain)
            found = self._lookup_distinct(
                tf.constant(np.concatenate(values), tf.string),
                tf.constant(np.repeat(self._salt_of_column[:count], sizes)),
                tf.constant(np.repeat(self._buckets_of_column[:count], sizes)),
            ).numpy()
            starts = np.cumsum([0, *sizes])
            for j, column in enumerate(coded):
                plain_ids[:, j] = found[starts[j] : starts[j + 1]][np.asarray(column.indices)]
        encoded = self._encode_around(
            tf.constant(number_matrix(table, self.schema.input_numbers)),
            tf.constant(text_matrix(table, self._other_columns), tf.string),
            tf.constant(plain_ids),
        )
        images = {n: table[n].to_numpy(zero_copy_only=False) for n in self.schema.input_images}
        return self._with_images(encoded, images)

    def encode_numpy(
        self,
        numbers: np.ndarray,
        texts: np.ndarray,
        images: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """The same graph on NumPy arrays: float32 [batch, N], object [batch, T] of bytes."""
        encoded = self._encode_matrices(tf.constant(numbers), tf.constant(texts, tf.string))
        return self._with_images(encoded, images or {})

    def _with_images(
        self, encoded: Mapping[str, tf.Tensor], images: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        found = {key: value.numpy() for key, value in encoded.items()}
        for image in self._images:
            texts = tf.constant(images[image.column], tf.string)
            found[f"image/{image.name}"] = decode_images_traced(texts, image).numpy()
        return found
