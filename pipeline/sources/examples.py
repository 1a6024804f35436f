"""TFRecord files of `tf.Example` as a source: the interchange format of other TensorFlow tools."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import DataError, reason_of
from pipeline.paths import local_copy
from pipeline.schema import FeatureSchema
from pipeline.sources.block import Block
from pipeline.sources.chunk import Parsed, Reject, empty_table
from pipeline.sources.columns import separators

__all__ = ["compression_of", "example_columns", "read_examples"]

_BATCH = 4096
_GZIP_MAGIC = b"\x1f\x8b"
_READ_BYTES = 1 << 20


def compression_of(path: str) -> str:
    """TensorFlow's name for how a local TFRecord file is compressed: GZIP or nothing.

    A plain file may begin with gzip's magic too (a first record of 35,615 bytes does), but then its
    first length has the right checksum.
    """
    import tensorflow as tf

    with open(path, "rb") as stream:
        if stream.read(2) != _GZIP_MAGIC:
            return ""
    try:
        for _ in tf.data.TFRecordDataset(path).take(1):
            pass
    except tf.errors.OpError:
        return "GZIP"
    return ""


def example_columns(schema: FeatureSchema, path: str) -> list[str]:
    """Features of the first Example and every column that the schema names plainly.

    Raises:
        ValueError: not a TFRecord file.
    """
    import tensorflow as tf

    names: list[str] = []
    try:
        with local_copy(path) as file:
            for record in tf.data.TFRecordDataset(file, compression_of(file)).take(1):
                names = sorted(_parse(record.numpy()).features.feature)
    except tf.errors.OpError as error:
        raise ValueError(reason_of(error)) from None
    except ValueError:
        names = []  # a malformed first record is a reject like any other
    return list(dict.fromkeys([*names, *(c for c in schema.columns if "*" not in c)]))


def read_examples(block: Block, schema: FeatureSchema) -> Iterator[Parsed]:
    """Batches of Examples as Arrow tables. Types follow the schema: an int64 or float list may stand
    for a number or a text, a bytes list for a text or a number written out.

    Raises:
        DataError: the file is truncated or damaged: how many records are lost cannot be told.
    """
    import tensorflow as tf

    with local_copy(block.path) as file:
        try:
            compression = compression_of(file)
            if compression:
                _check_gzip_is_whole(file)
            records = tf.data.TFRecordDataset(file, compression)
            yield from _read(records.batch(_BATCH), block.path, schema)
        except (tf.errors.DataLossError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{block.path} must be a whole TFRecord file",
                reason_of(error),
                "Write the file again.",
            ) from None


def _check_gzip_is_whole(path: str) -> None:
    """TensorFlow takes a gzip stream that is cut between two records for a whole one.

    Raises:
        EOFError: the stream has no end.
        gzip.BadGzipFile, zlib.error: it is damaged.
    """
    with gzip.open(path) as stream:
        while stream.read(_READ_BYTES):
            pass


def _read(batches: Any, path: str, schema: FeatureSchema) -> Iterator[Parsed]:
    """Batches of serialized Examples -> tables and rejects."""
    first_row = 0
    for batch in batches:
        good, rows, rejects = [], [], []
        for i, record in enumerate(batch.numpy()):
            try:
                good.append(_row(_parse(record).features.feature, schema))
                rows.append(i)
            except ValueError as error:
                rejects.append(Reject(path, first_row + i, reason_of(error)[:300], record))
        index = np.array(rows, dtype=np.int64)
        yield Parsed(_table(good, schema), index, len(batch), rejects, first_row + index)
        first_row += len(batch)


def _parse(record: bytes) -> Any:
    """A `tf.Example`; ValueError for anything else."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return tf.train.Example.FromString(record)
    except DecodeError as error:
        raise ValueError(f"not a tf.Example: {error}") from None


def _row(feature: Any, schema: FeatureSchema) -> list[Any]:
    numbers, joined_with = set(schema.number_columns), separators(schema)
    row: list[Any] = []
    for name in schema.columns:
        kind = feature[name].WhichOneof("kind") if name in feature else None
        values = list(getattr(feature[name], kind).value) if kind else []
        if name in numbers:
            row.append(_number(name, values))
        else:
            texts = [v if isinstance(v, bytes) else str(v).encode() for v in values]
            row.append(joined_with.get(name, ",").encode().join(texts))
    return row


def _number(name: str, values: list[Any]) -> float:
    if len(values) > 1:
        raise ValueError(f"{name} must be one number: got {len(values)} values")
    if not values or values[0] == b"":
        return float("nan")
    try:
        return float(values[0])
    except ValueError:
        raise ValueError(f"{name} must be a number: got {values[0][:80]!r}") from None


def _table(rows: list[list[Any]], schema: FeatureSchema) -> pa.Table:
    empty = empty_table(schema)
    if not rows:
        return empty
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, t) for c, t in zip(columns, empty.schema.types, strict=True)]
    return pa.table(arrays, names=empty.column_names)
