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
        aliases: by feature, texts that are read as another: null markers (as the empty text) and
            spellings of a boolean. They are keys of their own, so that no request pays for them.

    Raises:
        ValueError: two values of a feature cannot be told apart by 63 bits.
    """

    def __init__(
        self,
        values: Mapping[str, pa.Array],
        num_oov_buckets: Mapping[str, int],
        aliases: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        super().__init__(name="vocabulary_table")
        self._buckets = dict(num_oov_buckets)
        # A missing value is a key like any other: a request then costs no operation for it.
        missing = np.array([int(tf.strings.to_hash_bucket_fast("", _HASH_RANGE))])
        hashes, ids = dict[str, np.ndarray](), []
        for name, own in values.items():
            known = np.append(missing, _hashes(own))
            own_ids = np.append(0, num_oov_buckets[name] + 1 + np.arange(len(own)))
            more, meant = _alias_hashes((aliases or {}).get(name, {}))
            # An earlier vocabulary may hold an alias as a value: its id is then never given.
            kept = ~np.isin(known, more)
            known, own_ids = known[kept], own_ids[kept]
            order = np.argsort(known)
            place = order[np.searchsorted(known, meant, sorter=order).clip(max=len(known) - 1)]
            unseen = 1 + meant % num_oov_buckets[name]
            meant_ids = np.where(known[place] == meant, own_ids[place], unseen)
            hashes[name] = np.append(known, more)
            ids.append(np.append(own_ids, meant_ids))
        self._salts = _salts(hashes)
        keys = [hashed ^ self._salts[name] for name, hashed in hashes.items()]
        if not keys:  # TensorFlow fills no table with nothing; no value has a negative key
            keys, ids = [np.array([-1])], [np.array([0])]
        self._keys = tf.Variable(np.concatenate(keys), trainable=False, name="vocabulary_keys")
        self._ids = tf.Variable(
            np.concatenate(ids).astype(np.int32), trainable=False, name="vocabulary_ids"
        )
        # One bucket everywhere, the usual case: the table itself answers with it.
        self._one_bucket = set(num_oov_buckets.values()) <= {1}
        self._table = tf.lookup.StaticHashTable(
            _VariableInitializer(self._keys, self._ids), default_value=1 if self._one_bucket else -1
        )

    def constants(self, owners: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(constant, number of unseen buckets) for each column of texts; int64 [len(owners)] each."""
        salts = np.array([self._salts[n] for n in owners], np.int64)
        return salts, np.array([self._buckets[n] for n in owners], np.int64)

    def lookup(self, texts: tf.Tensor, salts: np.ndarray, buckets: np.ndarray) -> tf.Tensor:
        """String [batch, C] -> int32 [batch, C]: 0 missing, then unseen buckets, then the vocabulary."""
        hashed = tf.strings.to_hash_bucket_fast(texts, _HASH_RANGE)
        found = self._table.lookup(tf.bitwise.bitwise_xor(hashed, salts))
        if self._one_bucket:
            return found
        unseen = 1 + tf.cast(tf.math.floormod(hashed, buckets), tf.int32)
        return tf.where(found < 0, unseen, found)


def _hashes(values: pa.Array) -> np.ndarray:
    """The fingerprints of some values: int64 [n]."""
    if not len(values):
        return np.zeros(0, np.int64)
    texts = tf.constant(values.to_numpy(zero_copy_only=False))
    return tf.strings.to_hash_bucket_fast(texts, _HASH_RANGE).numpy()


def _alias_hashes(aliases: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints of the aliases, and of what each is read as."""
    texts = [
        pa.array([t.encode() for t in side], pa.binary()) for side in (aliases, aliases.values())
    ]
    return _hashes(texts[0]), _hashes(texts[1])


def _salts(hashes: Mapping[str, np.ndarray]) -> dict[str, int]:
    """A constant a feature under which no two keys of the table are alike.

    Raises:
        ValueError: two values of a feature have one fingerprint.
    """
    salts = {name: _salt(name, 0) for name in hashes}
    everything = [hashed ^ salts[name] for name, hashed in hashes.items()]
    if _all_different(everything):  # one sort of all keys; the search below sorts once a feature
        return salts
    taken: list[np.ndarray] = []
    for name, hashed in hashes.items():
        for attempt in range(16):
            salts[name] = _salt(name, attempt)
            if _all_different([*taken, hashed ^ salts[name]]):
                break
        else:
            raise ValueError(f"two values of {name} share a 63-bit fingerprint")
        taken.append(hashed ^ salts[name])
    return salts


def _all_different(keys: list[np.ndarray]) -> bool:
    joined = np.sort(np.concatenate([np.zeros(0, np.int64), *keys]))
    return not bool(np.any(joined[1:] == joined[:-1]))


def _salt(name: str, attempt: int) -> int:
    digest = hashlib.sha256(f"{attempt} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
