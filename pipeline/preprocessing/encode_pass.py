"""The encode pass: blocks -> spill files of encoded rows -> globally shuffled TFRecord shards.

A block's rows go to one spill file, grouped by the shard that they belong to. Only (shard, file,
offset, count) travels through Beam. A shard gathers its pieces in block order and permutes them with
a seed: the same bytes whatever the number of workers.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipeline.errors import ClickparityError
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.parsed_rows import ParsedRows
from pipeline.preprocessing.row_fates import (
    PARITY,
    SHUFFLE,
    RowFates,
    SplitTimes,
    assign_splits,
    examples_of,
    kept_by_sampling,
    row_uniform,
)
from pipeline.records.data_directory import SPLITS, shard_name
from pipeline.records.encoded import EncodedSpec
from pipeline.schema import FeatureSchema
from pipeline.sources import Block, Chunk
from pipeline.sources.columns import decode_columns
from pipeline.transform.parity_sample import keep_sample
from pipeline.transform.raw_rows import number_matrix

if TYPE_CHECKING:
    from pipeline.transform.feature_transform import FeatureTransform

__all__ = ["EncodePlan", "EncodeRows", "Piece", "ShardResult", "WriteShard"]


@dataclasses.dataclass(frozen=True)
class EncodePlan:
    """Everything that the encode pass needs, small enough to travel to every worker.

    Attributes:
        schema: resolved.
        spec: of the encoded rows.
        config: options.
        times: thresholds of a split by time.
        staging: the staging directory; holds `statistics/` and `parsed/`, gets `spill/` and the shards.
        num_shards: by split.
        sample_split: the split (index) from which the parity sample is drawn, and its rate.
    """

    schema: FeatureSchema
    spec: EncodedSpec
    config: PreprocessConfig
    times: SplitTimes | None
    staging: str
    num_shards: tuple[int, int, int]
    sample_split: int
    sample_rate: float


@dataclasses.dataclass(frozen=True, order=True)
class Piece:
    """Rows of one shard in one spill file; pieces order by where the rows came from."""

    block: int
    chunk: int
    path: str
    offset: int
    rows: int


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What a written shard holds."""

    split: int
    shard: int
    rows: int
    weight: float
    click_weight: float


@functools.lru_cache(maxsize=1)
def _transform(staging: str, schema: FeatureSchema, fingerprint: str) -> FeatureTransform:
    """One transform a process; the fingerprint tells apart what one directory held at two times."""
    from pipeline.statistics.feature_statistics import FeatureStatistics
    from pipeline.transform.feature_transform import FeatureTransform

    transform = FeatureTransform(schema, FeatureStatistics.load(Path(staging) / "statistics"))
    if transform.spec.fingerprint != fingerprint:
        raise ClickparityError(
            "a worker must encode by the statistics that the job was planned with",
            f"fingerprint {transform.spec.fingerprint} in {staging}, {fingerprint} planned",
            "Start again; every worker must see the same output directory.",
        )
    return transform


class EncodeRows(beam.DoFn):
    """Block -> ((split, shard), Piece); 'count' gets what became of the block's rows."""

    def __init__(self, plan: EncodePlan) -> None:
        self._plan = plan

    def process(self, block: Block) -> Iterator[Any]:
        """Takes a block's parsed rows, encodes and spills them."""
        plan, schema = self._plan, self._plan.schema
        transform = _transform(plan.staging, schema, plan.spec.fingerprint)
        fates, num_rows = [], 0
        parsed = ParsedRows(plan.staging, schema)
        for number, chunk in enumerate(parsed.chunks(block)):
            rows, split, shard, fate = _encode_chunk(chunk, block, plan, transform)
            fates.append(fate)
            num_rows += chunk.num_rows
            yield from self._spill(rows, split, shard, block.index, number)
        parsed.forget(block)
        yield beam.pvalue.TaggedOutput("count", RowFates.sum(fates))
        (Path(plan.staging) / "progress" / f"encode-{block.index}-{num_rows}").touch()

    def _spill(
        self, rows: np.ndarray, split: np.ndarray, shard: np.ndarray, block: int, number: int
    ) -> Iterator[tuple[tuple[int, int], Piece]]:
        """Writes the rows of a chunk to one file, grouped by (split, shard)."""
        path = os.path.join(self._plan.staging, "spill", f"{block:06d}-{number:04d}.rows")
        largest = max(self._plan.num_shards)
        key = split.astype(np.int64) * largest + shard
        order = np.argsort(key, kind="stable")
        beside = f"{path}.{os.getpid()}"
        rows[order].tofile(beside)
        os.rename(beside, path)
        keys, starts, sizes = np.unique(key[order], return_index=True, return_counts=True)
        width = rows.shape[1] * rows.itemsize
        for k, start, size in zip(keys.tolist(), starts.tolist(), sizes.tolist(), strict=True):
            yield (k // largest, k % largest), Piece(block, number, path, start * width, size)


def _encode_chunk(
    chunk: Chunk, block: Block, plan: EncodePlan, transform: FeatureTransform
) -> tuple[np.ndarray, np.ndarray, np.ndarray, RowFates]:
    """A chunk -> (rows int32 [n, row_words], split [n], shard [n], fates of its rows)."""
    from pipeline.records.packed import RowLayout

    schema, config, table = plan.schema, plan.config, chunk.table
    layout = RowLayout.of(transform.spec)
    split = assign_splits(chunk, block.index, schema, plan.times)
    examples = examples_of(chunk, schema)
    kept = kept_by_sampling(
        examples, chunk, block.index, split, seed=config.seed, keep_rate=config.negative_keep_rate
    )
    index = examples.index[kept]
    fates = RowFates.of(split, index)
    if not table.num_rows:
        empty = np.zeros(0, np.int64)
        return np.zeros((0, layout.row_words), np.int32), empty, empty, fates
    encoded = transform.encode_table(table)
    encoded["carry"] = number_matrix(table, schema.carry)
    if len(index) != table.num_rows or not np.array_equal(index, np.arange(table.num_rows)):
        encoded = {name: values[index] for name, values in encoded.items()}
    encoded["label"], encoded["weight"] = examples.label[kept], examples.weight[kept]
    rows = layout.pack(encoded)
    u = row_uniform(block.index, chunk.row, seed=config.seed, stream=SHUFFLE)[index]
    row_split = split[index]
    shard = (u * np.array(plan.num_shards)[row_split]).astype(np.int64)
    u = row_uniform(block.index, chunk.row, seed=config.seed, stream=PARITY)[index]
    chosen = np.flatnonzero((u < plan.sample_rate) & (row_split == plan.sample_split))
    if len(chosen):
        name = f"{block.index:06d}-{int(chunk.row[0]):010d}"
        raw = decode_columns(table.take(pa.array(index[chosen])))
        keep_sample(Path(plan.staging), name, raw, rows[chosen])
    return rows, row_split, shard, fates


def _gathered(pieces: list[Piece], width: int) -> np.ndarray:
    """The rows of some pieces, int32 [n, width], read into one array."""
    rows = np.empty((sum(p.rows for p in pieces), width), "<i4")
    start = 0
    for piece in pieces:
        part = rows[start : start + piece.rows]
        with open(piece.path, "rb") as file:
            file.seek(piece.offset)
            if file.readinto(part.data.cast("B")) != part.nbytes:
                raise OSError(f"{piece.path} was cut short while it was read")
        start += piece.rows
    return rows


class WriteShard(beam.DoFn):
    """((split, shard), pieces) -> one TFRecord file, permuted; emits a ShardResult."""

    def __init__(self, plan: EncodePlan) -> None:
        self._plan = plan

    def process(self, element: tuple[tuple[int, int], Iterable[Piece]]) -> Iterator[ShardResult]:
        """Gathers, permutes and writes one shard."""
        from pipeline.records.packed import RowLayout, write_packed

        (split, shard), pieces = element
        plan = self._plan
        layout = RowLayout.of(plan.spec)
        width = layout.row_words
        rows = _gathered(sorted(pieces), width)
        order = np.random.default_rng([plan.config.seed, split, shard]).permutation(len(rows))
        rows = rows[order]
        name = shard_name(shard, plan.num_shards[split])
        path = os.path.join(plan.staging, SPLITS[split], name)
        beside = f"{path}.{os.getpid()}"
        if plan.config.layout == "examples":
            from pipeline.records.examples import write_examples

            write_examples(beside, layout, plan.spec, rows)
        else:
            write_packed(beside, layout, rows, rows_per_record=plan.config.rows_per_record)
        os.rename(beside, path)
        label = rows[:, layout.column("label")].view(np.float32).astype(np.float64)
        weight = rows[:, layout.column("weight")].view(np.float32).astype(np.float64)
        yield ShardResult(split, shard, len(rows), float(weight.sum()), float(weight @ label))
