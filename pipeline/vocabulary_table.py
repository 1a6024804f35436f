"""One hash table for every vocabulary: key = fingerprint of the value XOR a constant of its feature."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import tensorflow as tf
from tensorflow.python.ops.lookup_ops import TableInitializerBase

__all__ = ["VocabularyTable"]

_HASH_RANGE = 2**63 - 1


class _VariableInitializer(TableInitializerBase):
    """Fills a table from two variables: the keys are then saved once, as data, not as graph constants.

    A SavedModel's loader restores variables before it initialises tables.
    """

    def __init__(self, keys: tf.Variable, values: tf.Variable) -> None:
        super().__init__(key_dtype=keys.dtype, value_dtype=values.dtype)
        self._keys, self._values = keys, values

    def initialize(self, table: tf.lookup.StaticHashTable) -> tf.Operation:
        return tf.raw_ops.LookupTableImportV2(
            table_handle=table.resource_handle,
            keys=self._keys.read_value(),
            values=self._values.read_value(),
        )

    @property
    def _shared_name(self) -> str:
        # TensorFlow shares tables of one name in a process: the name must follow from the contents.
        digest = hashlib.sha256(self._keys.numpy().tobytes() + self._values.numpy().tobytes())
        return f"clickparity_vocabulary_{digest.hexdigest()[:16]}"


class VocabularyTable(tf.Module):
    """Values of many features -> ids, in one lookup.

    Args:
        values: by feature, its vocabulary in id order.
        num_oov_buckets: by feature.

    Raises:
        ValueError: two values of a feature cannot be told apart by 63 bits.
    """

    def __init__(self, values: Mapping[str, pa.Array], num_oov_buckets: Mapping[str, int]) -> None:
        super().__init__(name="vocabulary_table")
        self._buckets = dict(num_oov_buckets)
        self._salts: dict[str, int] = {}
        all_keys, all_ids = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for name, own in values.items():
            hashes = np.zeros(0, np.int64)
            if len(own):
                texts = tf.constant(own.to_numpy(zero_copy_only=False))
                hashes = tf.strings.to_hash_bucket_fast(texts, _HASH_RANGE).numpy()
            for attempt in range(16):
                self._salts[name] = _salt(name, attempt)
                keys = np.concatenate([all_keys, hashes ^ self._salts[name]])
                if len(np.unique(keys)) == len(keys):
                    break
            else:
                raise ValueError(f"two values of {name} share a 63-bit fingerprint")
            all_keys = keys
            first = 1 + num_oov_buckets[name]
            all_ids = np.concatenate([all_ids, np.arange(first, first + len(hashes))])
        if not len(all_keys):  # TensorFlow fills no table with nothing; no value has a negative key
            all_keys, all_ids = np.array([-1]), np.array([0])
        self._keys = tf.Variable(all_keys, trainable=False, name="vocabulary_keys")
        self._ids = tf.Variable(all_ids, trainable=False, name="vocabulary_ids")
        self._table = tf.lookup.StaticHashTable(
            _VariableInitializer(self._keys, self._ids), default_value=-1
        )
        self._empty_hash = int(tf.strings.to_hash_bucket_fast("", _HASH_RANGE))

    def constants(self, owners: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(constant, number of unseen buckets) for each column of texts; int64 [len(owners)] each."""
        salts = np.array([self._salts[n] for n in owners], np.int64)
        return salts, np.array([self._buckets[n] for n in owners], np.int64)

    def lookup(self, texts: tf.Tensor, salts: np.ndarray, buckets: np.ndarray) -> tf.Tensor:
        """String [batch, C] -> int32 [batch, C]: 0 missing, then unseen buckets, then the vocabulary."""
        hashed = tf.strings.to_hash_bucket_fast(texts, _HASH_RANGE)
        found = self._table.lookup(tf.bitwise.bitwise_xor(hashed, salts))
        unseen = 1 + tf.math.floormod(hashed, buckets)
        ids = tf.where(found < 0, unseen, found)
        return tf.cast(tf.where(hashed == self._empty_hash, tf.zeros_like(ids), ids), tf.int32)


def _salt(name: str, attempt: int) -> int:
    digest = hashlib.sha256(f"{attempt} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
