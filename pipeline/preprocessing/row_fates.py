"""What happens to each row: its split, its examples (label and weight), its place in the shuffle.

Everything follows from the row's position (block, row in block) or from its own values, through a
counter-based hash: the same input gives the same output whatever the number of workers.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.records.data_directory import SPLITS
from pipeline.schema import FeatureSchema, TimeSpec
from pipeline.sources.columns import as_float32
from pipeline.sources.reading import Chunk
from pipeline.values import parse_time

__all__ = ["Examples", "RowFates", "SplitTimes", "assign_splits", "examples_of", "row_uniform"]

_SPLIT, _SAMPLING, SHUFFLE, PARITY = 1, 2, 3, 4  # independent streams of the hash


@dataclasses.dataclass(frozen=True)
class SplitTimes:
    """A split by time: where the time is, and from which second since 1970 rows are validation, and test."""

    time: TimeSpec
    validation: int
    test: int


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples that a chunk's rows become; one a row, or up to two for counted clicks.

    Attributes:
        index: the row (in the chunk's table) of each example, int64 [n].
        label, weight: float32 [n].
    """

    index: np.ndarray
    label: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class RowFates:
    """What became of some input rows that could be read, counted where they were encoded.

    Attributes:
        rows: that gave an example, by the index of their split in `SPLITS`.
        dropped: that gave none, being sampled away or without clicks and impressions.
        examples: that they gave, by split.
    """

    rows: tuple[int, int, int] = (0, 0, 0)
    dropped: int = 0
    examples: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def of(cls, split: np.ndarray, index: np.ndarray) -> RowFates:
        """Of rows with their splits [rows], and the row [examples] of each example that they gave."""
        alive = np.zeros(len(split), bool)
        alive[index] = True
        return cls(_by_split(split[alive]), int((~alive).sum()), _by_split(split[index]))

    @classmethod
    def sum(cls, fates: Iterable[RowFates]) -> RowFates:
        """Of all rows together."""
        total = np.zeros(7, np.int64)
        for fate in fates:
            total += np.array([*fate.rows, fate.dropped, *fate.examples])
        a, b, c, dropped, *examples = total.tolist()
        return cls((a, b, c), dropped, (examples[0], examples[1], examples[2]))


def _by_split(split: np.ndarray) -> tuple[int, int, int]:
    train, validation, test = np.bincount(split, minlength=3).tolist()
    return train, validation, test


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser on uint64 [n] (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _uniform(key: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """float64 [n] in [0, 1) from uint64 keys."""
    with np.errstate(over="ignore"):
        start = np.uint64(seed & (2**64 - 1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(stream)
        mixed = _mix(_mix(np.atleast_1d(start))[0] ^ _mix(key + np.uint64(0x9E3779B97F4A7C15)))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def row_uniform(block: int, row: np.ndarray, *, seed: int, stream: int) -> np.ndarray:
    """A uniform number in [0, 1) for each row of a block; float64 [n]."""
    key = np.uint64(block) * np.uint64(1 << 36) + row.astype(np.uint64)
    return _uniform(key, seed, stream)


def assign_splits(
    chunk: Chunk, block: int, schema: FeatureSchema, times: SplitTimes | None
) -> np.ndarray:
    """The index into `SPLITS` of each good row of a chunk; int8 [n]."""
    split, table = schema.split, chunk.table
    if split.by == "column":
        names = pa.array([s.encode() for s in SPLITS])
        return np.asarray(pc.index_in(table[split.column], value_set=names)).astype(np.int8)
    if times is not None:
        seconds = np.asarray(parse_time(table[times.time.column], times.time.format))
        return (seconds >= times.validation).astype(np.int8) + (seconds >= times.test).astype(
            np.int8
        )
    if split.by == "key":
        coded = pc.dictionary_encode(table[split.key].combine_chunks())
        # One C call a distinct key; the keys of a chunk repeat.
        hashes = [zlib.crc32(key) for key in coded.dictionary.to_pylist()]
        keys = np.array(hashes, np.uint64)[np.asarray(coded.indices)]
        u = _uniform(keys, split.seed, _SPLIT)
    else:
        u = row_uniform(block, chunk.row, seed=split.seed, stream=_SPLIT)
    return np.where(u < split.test, 2, np.where(u < split.test + split.validation, 1, 0)).astype(
        np.int8
    )


def examples_of(chunk: Chunk, schema: FeatureSchema) -> Examples:
    """Labels and weights of a chunk, counted clicks expanded."""
    table, label = chunk.table, schema.label
    weight = np.ones(table.num_rows, np.float32)
    if schema.weight is not None:
        weight = as_float32(table[schema.weight])
    if label.column is not None:
        return Examples(np.arange(table.num_rows), as_float32(table[label.column]), weight)
    clicks = np.asarray(table[label.clicks])
    others = np.asarray(table[label.impressions]) - clicks
    rows = np.arange(table.num_rows)
    index = np.stack([rows, rows], axis=1).ravel()
    labels = np.tile(np.array([1, 0], np.float32), table.num_rows)
    counts = np.stack([clicks, others], axis=1).ravel().astype(np.float32)
    keep = counts > 0
    return Examples(index[keep], labels[keep], (counts * weight[index])[keep])


def kept_by_sampling(
    examples: Examples, chunk: Chunk, block: int, split: np.ndarray, *, seed: int, keep_rate: float
) -> np.ndarray:
    """Which examples survive negative down-sampling: all but a share of the training negatives."""
    if keep_rate >= 1:
        return np.ones(len(examples.label), bool)
    u = row_uniform(block, chunk.row, seed=seed, stream=_SAMPLING)[examples.index]
    return (u < keep_rate) | (examples.label > 0) | (split[examples.index] != 0)
