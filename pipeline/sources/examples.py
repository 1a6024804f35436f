"""TFRecord files of `tf.Example` as a source: the interchange format of other TensorFlow tools."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import DataError, reason_of
from pipeline.paths import local_copy
from pipeline.schema import FeatureSchema
from pipeline.sources.block import Block
from pipeline.sources.chunk import Parsed, Reject, empty_table
from pipeline.values import ColumnRule, column_rules, from_python, naming_column

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
    for a number or a text, a bytes list for a text or a number written out. Several values are a typed
    list, one is what it says.

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
    first_row, rules = 0, column_rules(schema)
    for batch in batches:
        records = batch.numpy()
        tables: list[pa.Table] = []
        rows: list[int] = []
        rejects: list[Reject] = []
        pending = [range(len(records))]
        while pending:  # cut in halves down to the records that cannot be read
            at = pending.pop()
            try:
                features = [_parse(records[i]).features.feature for i in at]
                tables.append(_parsed_rows(features, schema, rules))
                rows += at
            except ValueError as error:
                if len(at) == 1:
                    reason = reason_of(error)[:300]
                    rejects.append(Reject(path, first_row + at[0], reason, records[at[0]]))
                else:
                    middle = len(at) // 2
                    pending += [at[middle:], at[:middle]]
        index = np.array(rows, dtype=np.int64)
        table = pa.concat_tables(tables or [empty_table(schema)])
        yield Parsed(table, index, len(records), rejects, first_row + index)
        first_row += len(records)


def _parse(record: bytes) -> Any:
    """A `tf.Example`; ValueError for anything else."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return tf.train.Example.FromString(record)
    except DecodeError as error:
        raise ValueError(f"not a tf.Example: {error}") from None


def _parsed_rows(
    features: list[Any], schema: FeatureSchema, rules: Mapping[str, ColumnRule]
) -> pa.Table:
    """A table of some Examples' features; ValueError where a value of any has no reading."""
    arrays = []
    for name in schema.columns:
        values = [_value(name, feature, rules[name]) for feature in features]
        with naming_column(name, rules[name]):
            arrays.append(from_python(values, rules[name]))
    return pa.table(arrays, names=list(schema.columns))


def _value(name: str, feature: Any, rule: ColumnRule) -> Any:
    """What one feature of an Example says: nothing, one value, or a list of several."""
    kind = feature[name].WhichOneof("kind") if name in feature else None
    values = list(getattr(feature[name], kind).value) if kind else []
    if kind == "float_list":
        values = list(np.array(values, np.float32))
    if len(values) > 1 and rule.kind == "number":
        raise ValueError(f"{name} must be one number: got {len(values)} values")
    return values if len(values) > 1 else values[0] if values else None
