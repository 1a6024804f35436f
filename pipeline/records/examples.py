"""The `examples` layout: one serialized `tf.Example` a row, for other TensorFlow tools.

Encoded rows have a fixed width, so their Examples differ in a few bytes at known places only: a row
is a template with its values patched in, for a whole batch at once. Floats are packed
little-endian; an id is a varint padded with continuation bits to 5 bytes, which the protobuf wire
format allows.

    one float feature per name in `spec.numeric`, one int64 feature per name in `spec.categorical`,
    one int64 list of `max_length` per sequence, one bytes value (raw pixels, row-major) per image,
    float features `label`, `weight` and one per carried column
"""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec
from pipeline.records.packed import RowLayout

__all__ = [
    "decode_examples",
    "parse_spec",
    "rows_from_examples",
    "write_examples",
]

_VARINT_BYTES = 5  # 35 bits: any int32 id that is not negative
_CHUNK_BYTES = 1 << 20  # of the matrix that is patched at a time: it stays in the cache
_BYTES, _FLOATS, _INTS = 0x0A, 0x12, 0x1A  # tags of Feature's bytes_list, float_list and int64_list


def write_examples(path: str, layout: RowLayout, spec: EncodedSpec, rows: np.ndarray) -> None:
    """Writes encoded rows as a TFRecord file, one `tf.Example` each, in order; overwrites `path`.

    Args:
        path: a local file.
        layout: `RowLayout.of(spec)`.
        spec: names and sizes of the encoded tensors.
        rows: int32 [n, row_words], as `layout.pack` makes them.

    Raises:
        ConfigError: two of the spec's tensors would share a feature name.
    """
    with tf.io.TFRecordWriter(path) as writer:
        for matrix in _example_matrices(layout, spec, rows):
            for example in matrix.view(f"V{matrix.shape[1]}").ravel().tolist():
                writer.write(example)


def parse_spec(spec: EncodedSpec) -> dict[str, tf.io.FixedLenFeature]:
    """What `tf.io.parse_example` needs to read the layout: feature name -> its shape and type.

    Raises:
        ConfigError: two of the spec's tensors would share a feature name.
    """
    features: dict[str, tf.io.FixedLenFeature] = {}
    for name, key, length in _feature_names(spec):
        if key.startswith("image/"):
            features[name] = tf.io.FixedLenFeature([], tf.string)
        elif key == "ids":
            features[name] = tf.io.FixedLenFeature([], tf.int64)
        elif key.startswith("sequence/"):
            features[name] = tf.io.FixedLenFeature([length], tf.int64)
        else:
            features[name] = tf.io.FixedLenFeature([], tf.float32)
    return features


def decode_examples(serialized: tf.Tensor, spec: EncodedSpec) -> dict[str, tf.Tensor]:
    """Serialized Examples, string [batch] -> the encoded tensors (see `pipeline.records.encoded`).

    Works eagerly and in a graph, and gives the tensors of the packed layout bit by bit.
    """
    parsed = tf.io.parse_example(serialized, parse_spec(spec))
    num_rows = tf.size(serialized)

    def joined(names: tuple[str, ...], dtype: tf.DType) -> tf.Tensor:
        if not names:
            return tf.zeros([num_rows, 0], dtype)
        return tf.cast(tf.stack([parsed[name] for name in names], axis=1), dtype)

    tensors = {
        "numeric": joined(spec.numeric, tf.float32),  # [batch, D]
        "ids": joined(tuple(f.name for f in spec.categorical), tf.int32),  # [batch, F]
        "label": parsed["label"],
        "weight": parsed["weight"],
        "carry": joined(spec.carry, tf.float32),  # [batch, C]
    }
    for sequence in spec.sequences:
        tensors[f"sequence/{sequence.name}"] = tf.cast(parsed[sequence.name], tf.int32)
    for image in spec.images:
        shape = (image.height, image.width, image.channels)
        pixels = tf.io.decode_raw(parsed[image.name], tf.uint8, fixed_length=int(np.prod(shape)))
        tensors[f"image/{image.name}"] = tf.reshape(pixels, (-1, *shape))
    return tensors


def rows_from_examples(serialized: tf.Tensor, layout: RowLayout, spec: EncodedSpec) -> tf.Tensor:
    """Serialized Examples, string [batch] -> int32 [batch, row_words], as a packed record holds."""
    tensors = decode_examples(serialized, spec)
    num_rows = tf.size(serialized)
    words = []
    for section in layout.sections:
        if not section.words:
            continue
        values = tf.reshape(tensors[section.key], [num_rows, int(np.prod(section.shape))])
        if section.dtype == "uint8":
            values = tf.pad(values, [[0, 0], [0, section.words * 4 - values.shape[1]]])
            values = tf.reshape(values, [num_rows, section.words, 4])
        words.append(tf.bitcast(values, tf.int32))
    return tf.concat(words, axis=1)


# ------------------------------------------------------------------------------------- the template


def _feature_names(spec: EncodedSpec) -> list[tuple[str, str, int]]:
    """(feature name, key of its tensor, values a row), in the order of the row."""
    names = [(name, "numeric", 1) for name in spec.numeric]
    names += [(f.name, "ids", 1) for f in spec.categorical]
    names += [(s.name, f"sequence/{s.name}", s.max_length) for s in spec.sequences]
    names += [(i.name, f"image/{i.name}", i.height * i.width * i.channels) for i in spec.images]
    names += [("label", "label", 1), ("weight", "weight", 1)]
    names += [(name, "carry", 1) for name in spec.carry]
    counts = collections.Counter(name for name, _, _ in names)
    doubled = sorted(name for name, count in counts.items() if count > 1)
    if doubled:
        raise ConfigError(
            "the features of a tf.Example must differ in name (label and weight are taken)",
            f"{', '.join(doubled)} twice",
            "Give the feature another `name` in the schema (and its old one as `column`), "
            "or use layout=packed.",
        )
    return names


@functools.lru_cache(maxsize=8)
def _template(
    layout: RowLayout, spec: EncodedSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The bytes that all Examples share, and where the others go.

    Returns:
        uint8 [size] template; then, as int64 vectors, the template's byte for each copied byte and
        the row's byte it comes from, the template's byte for each varint byte and the row's word
        of each varint.
    """
    body = bytearray()
    to_bytes: list[int] = []
    from_bytes: list[int] = []
    to_varints: list[int] = []
    from_words: list[int] = []
    position: dict[str, int] = {}  # words of a shared tensor that earlier features used
    for name, key, length in _feature_names(spec):
        word = layout.column(key) + position.get(key, 0)
        is_integer = key == "ids" or key.startswith("sequence/")
        is_image = key.startswith("image/")
        size = length if is_image else length * (_VARINT_BYTES if is_integer else 4)
        tag = _BYTES if is_image else _INTS if is_integer else _FLOATS
        # All lists keep their values in field 1, length-delimited: packed numbers or one text.
        head = b"\x0a" + _varint(size)
        feature = bytes([tag]) + _varint(len(head) + size) + head
        encoded_name = name.encode()
        entry = b"\x0a" + _varint(len(encoded_name)) + encoded_name
        entry += b"\x12" + _varint(len(feature) + size) + feature
        body += b"\x0a" + _varint(len(entry) + size) + entry
        start = len(body)
        if is_integer:
            to_varints += range(start, start + size)
            from_words += range(word, word + length)
        else:
            to_bytes += range(start, start + size)
            from_bytes += range(word * 4, word * 4 + size)
        body += bytes(size)
        position[key] = position.get(key, 0) + length
    head = b"\x0a" + _varint(len(body))
    template = np.frombuffer(head + bytes(body), np.uint8)
    shift = len(head)
    return (
        template,
        np.array(to_bytes, np.int64) + shift,
        np.array(from_bytes, np.int64),
        np.array(to_varints, np.int64) + shift,
        np.array(from_words, np.int64),
    )


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _example_matrices(
    layout: RowLayout, spec: EncodedSpec, rows: np.ndarray
) -> Iterator[np.ndarray]:
    """uint8 [m, size] matrices, an Example a row; a new one each time."""
    template, to_bytes, from_bytes, to_varints, from_words = _template(layout, spec)
    step = max(_CHUNK_BYTES // len(template), 1)
    runs = _runs(to_bytes, from_bytes)
    for start in range(0, len(rows), step):
        part: Any = np.ascontiguousarray(rows[start : start + step], dtype="<i4")
        raw = part.view(np.uint8)
        matrix = np.empty((len(part), len(template)), np.uint8)
        matrix[:] = template
        for to, source, size in runs:
            matrix[:, to : to + size] = raw[:, source : source + size]
        if len(from_words):
            words = part.view("<u4")[:, from_words]  # [m, V]
            matrix[:, to_varints] = _padded_varints(words).reshape(len(part), -1)
        yield matrix


def _padded_varints(words: np.ndarray) -> np.ndarray:
    """uint32 [m, V] -> uint8 [m, V, 5]: 7 bits a byte, a continuation bit on all but the last."""
    w = words.astype("<u8", order="C")
    spread = w & 0x7F | 0x80808080
    for i in range(1, _VARINT_BYTES):
        spread |= (w & (0x7F << 7 * i)) << i
    return spread.view(np.uint8).reshape(*words.shape, 8)[:, :, :_VARINT_BYTES]


def _runs(to: np.ndarray, source: np.ndarray) -> list[tuple[int, int, int]]:
    """Index pairs -> (to, source, size) of the pieces that are consecutive on both sides."""
    if not len(to):
        return []
    breaks = np.flatnonzero((np.diff(to) != 1) | (np.diff(source) != 1)) + 1
    bounds = [0, *breaks.tolist(), len(to)]
    return [(int(to[a]), int(source[a]), b - a) for a, b in itertools.pairwise(bounds)]
