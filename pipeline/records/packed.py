"""Packed records: a TFRecord record holds many encoded rows as one little-endian matrix.

    record = header [4 words] + rows [num_rows, row_words]        every word is 4 bytes
    header = magic, row_words, num_rows, crc32 of the layout

A row is the concatenation of its tensors (numeric, ids, sequences, images, label, weight, carry), each
padded to whole words, so a reader needs one `decode_raw` a record and one slice a tensor; rows are
shuffled, re-batched and split without touching Python. The layout's checksum makes a record that was
written for another spec an error instead of plausible nonsense.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.records.encoded import EncodedSpec

__all__ = ["HEADER_WORDS", "RowLayout", "read_packed", "write_packed"]

HEADER_WORDS = 4
_MAGIC = int.from_bytes(b"CPK1", "little")


@dataclasses.dataclass(frozen=True)
class _Section:
    """Where one tensor lies in a row: `words` words from `offset`; `shape` per row; `dtype`."""

    key: str
    offset: int
    words: int
    shape: tuple[int, ...]
    dtype: str  # float32, int32 or uint8


@dataclasses.dataclass(frozen=True)
class RowLayout:
    """The order and width of the tensors in a packed row, derived from an `EncodedSpec`."""

    sections: tuple[_Section, ...]

    @classmethod
    def of(cls, spec: EncodedSpec) -> RowLayout:
        """The layout of `spec`: the only place that decides where a tensor lies in a row."""
        shapes: list[tuple[str, tuple[int, ...], str]] = [
            ("numeric", (len(spec.numeric),), "float32"),
            ("ids", (len(spec.categorical),), "int32"),
            *((f"sequence/{s.name}", (s.max_length,), "int32") for s in spec.sequences),
            *((f"image/{i.name}", (i.height, i.width, i.channels), "uint8") for i in spec.images),
            ("label", (), "float32"),
            ("weight", (), "float32"),
            ("carry", (len(spec.carry),), "float32"),
        ]
        sections, offset = [], 0
        for key, shape, dtype in shapes:
            num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            words = -(-num_bytes // 4)
            sections.append(_Section(key, offset, words, shape, dtype))
            offset += words
        return cls(tuple(sections))

    @functools.cached_property
    def row_words(self) -> int:
        """Words (of 4 bytes) in a row."""
        return sum(section.words for section in self.sections)

    @functools.cached_property
    def checksum(self) -> int:
        """A signed 32-bit checksum of names, order, widths and types."""
        return int(np.uint32(zlib.crc32(repr(self.sections).encode())).astype(np.int32))

    @functools.cached_property
    def _by_key(self) -> dict[str, _Section]:
        return {section.key: section for section in self.sections}

    def column(self, key: str) -> int:
        """The first word of tensor `key` in a row."""
        return self._by_key[key].offset

    def pack(self, encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        """Encoded tensors (see `pipeline.records.encoded`) -> int32 [batch, row_words]."""
        num_rows = len(encoded["label"])
        rows = np.zeros((num_rows, self.row_words), dtype="<i4")
        for s in self.sections:
            if not s.words:
                continue
            width = int(np.prod(s.shape, dtype=np.int64))
            values = np.ascontiguousarray(encoded[s.key], dtype=s.dtype).reshape(num_rows, width)
            if s.dtype == "uint8":
                padding = s.words * 4 - values.shape[1]
                values = np.pad(values, ((0, 0), (0, padding)))
            rows[:, s.offset : s.offset + s.words] = values.view("<i4")
        return rows

    def unpack(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Graph-side inverse of `pack`: int32 [batch, row_words] -> the encoded tensors."""
        tensors = {}
        for s in self.sections:
            part = rows[:, s.offset : s.offset + s.words]
            if s.dtype == "float32":
                part = tf.bitcast(part, tf.float32)
            elif s.dtype == "uint8":
                size = int(np.prod(s.shape))
                part = tf.reshape(tf.bitcast(part, tf.uint8), [-1, s.words * 4])[:, :size]
            tensors[s.key] = tf.reshape(part, (tf.shape(rows)[0], *s.shape))
        return tensors

    def unpack_numpy(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """NumPy inverse of `pack`."""
        tensors = {}
        for s in self.sections:
            part = np.ascontiguousarray(rows[:, s.offset : s.offset + s.words])
            values = part.view(s.dtype)[:, : int(np.prod(s.shape))]
            tensors[s.key] = values.reshape((len(rows), *s.shape))
        return tensors

    def to_record(self, rows: np.ndarray) -> bytes:
        """int32 [n, row_words] -> the bytes of one record."""
        header = np.array([_MAGIC, self.row_words, len(rows), self.checksum], dtype="<i4")
        return header.tobytes() + np.ascontiguousarray(rows, dtype="<i4").tobytes()

    def from_record(self, record: tf.Tensor) -> tf.Tensor:
        """One record (scalar string) -> int32 [n, row_words]; an alien record is an error in the graph."""
        words = tf.io.decode_raw(record, tf.int32, little_endian=True)
        expected = tf.constant([_MAGIC, self.row_words, self.checksum], tf.int32)
        found = tf.gather(words, [0, 1, 3])
        check = tf.debugging.Assert(
            tf.logical_and(
                tf.reduce_all(found == expected),
                tf.equal(tf.size(words), HEADER_WORDS + words[2] * self.row_words),
            ),
            [
                "a packed record must match the layout that its data directory describes; "
                "expected magic, row_words, checksum =",
                expected,
                "got",
                found,
                "Preprocess again: the file was written for another schema, or is damaged.",
            ],
        )
        with tf.control_dependencies([check]):
            return tf.reshape(words[HEADER_WORDS:], [-1, self.row_words])


def write_packed(
    path: str, layout: RowLayout, rows: np.ndarray, *, rows_per_record: int = 4096
) -> None:
    """Writes int32 [n, row_words] as a TFRecord file of packed records; overwrites `path`.

    An empty `rows` writes an empty, valid TFRecord file.
    """
    with tf.io.TFRecordWriter(path) as writer:
        for start in range(0, len(rows), rows_per_record):
            writer.write(layout.to_record(rows[start : start + rows_per_record]))


def read_packed(paths: str | Sequence[str] | Iterable[str], layout: RowLayout) -> np.ndarray:
    """All rows of some packed files, in order: int32 [n, row_words]. For tests and small samples."""
    files: Any = [paths] if isinstance(paths, str) else list(paths)
    parts = [layout.from_record(record).numpy() for record in tf.data.TFRecordDataset(files)]
    if not parts:
        return np.zeros((0, layout.row_words), dtype="<i4")
    return np.concatenate(parts)
