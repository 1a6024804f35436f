"""Exact counts of values -> vocabulary files, by partitioned combines: memory is bounded by a partition."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import FeatureSchema, VocabularyFeature
from pipeline.statistics.vocabulary import (
    Vocabulary,
    merge_counts,
    one_array,
    select_vocabulary,
    write_vocabulary,
)

__all__ = ["build_vocabularies", "from_bytes", "to_bytes"]

_COMPACT_ROWS = (
    8_192  # counts that wait to be merged; there is one accumulator a feature and partition
)


def to_bytes(table: pa.Table) -> bytes:
    """A table as Arrow IPC bytes, which Beam moves as they are."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes) -> pa.Table:
    """The table that `to_bytes` wrote."""
    return pa.ipc.open_stream(data).read_all()


class _MergeCounts(beam.CombineFn):
    """Arrow counts of one (feature, partition) -> their sum; memory is bounded by its distinct values."""

    def create_accumulator(self) -> list[pa.Table]:
        return []

    def add_input(self, accumulator: list[pa.Table], element: bytes) -> list[pa.Table]:
        accumulator.append(from_bytes(element))
        pending = sum(t.num_rows for t in accumulator[1:])
        if pending > max(accumulator[0].num_rows, _COMPACT_ROWS):
            return [merge_counts(accumulator)]
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[pa.Table]]) -> list[pa.Table]:
        return [merge_counts(t for a in accumulators for t in a)]

    def compact(self, accumulator: list[pa.Table]) -> list[pa.Table]:
        return [merge_counts(accumulator)]

    def extract_output(self, accumulator: list[pa.Table]) -> bytes:
        return to_bytes(merge_counts(accumulator))


@dataclasses.dataclass(frozen=True)
class _Limits:
    min_count: int
    max_vocab_size: int
    base: list[bytes] | None


def _cut(element: tuple[tuple[str, int], bytes], limits: dict[str, _Limits]) -> tuple[str, Any]:
    """Applies the limits within a partition, so that the last step sees no more than it may keep."""
    (name, _), data = element
    counted, limit = from_bytes(data), limits[name]
    base = pa.array(limit.base or [], pa.binary())
    here = base.filter(pc.is_in(base, value_set=one_array(counted["value"])))
    kept = select_vocabulary(
        counted,
        min_count=limit.min_count,
        max_vocab_size=limit.max_vocab_size + len(here),
        base=here,
    )
    table = pa.table({"value": kept.values, "count": kept.counts})
    return name, (counted.num_rows, to_bytes(table))


def _finish(
    element: tuple[str, Iterable[tuple[int, bytes]]], limits: dict[str, _Limits], staging: str
) -> tuple[str, int]:
    """Writes the vocabulary of one feature; returns its name and how many distinct values there were."""
    name, parts = element
    limit, parts = limits[name], list(parts)
    vocabulary: Vocabulary = select_vocabulary(
        merge_counts(from_bytes(data) for _, data in parts),
        min_count=limit.min_count,
        max_vocab_size=limit.max_vocab_size,
        base=pa.array(limit.base, pa.binary()) if limit.base is not None else None,
        num_distinct=sum(n for n, _ in parts),
    )
    write_vocabulary(vocabulary, Path(staging) / "statistics" / "vocabulary" / f"{name}.csv")
    return name, vocabulary.num_distinct


def build_vocabularies(
    counts: beam.PCollection,
    schema: FeatureSchema,
    staging: str,
    base: dict[str, list[bytes]] | None,
) -> beam.PCollection:
    """((feature, partition), Arrow counts) -> vocabulary files and (feature, distinct values).

    Args:
        counts: one element a (feature, partition) and block.
        schema: for the limits.
        staging: where statistics/vocabulary/ is.
        base: earlier vocabularies whose ids are kept, by feature.
    """
    limits = {
        f.name: _Limits(f.min_count, f.max_vocab_size, base.get(f.name) if base else None)
        for f in schema.features
        if isinstance(f, VocabularyFeature)
    }
    return (
        counts
        | "SumCounts" >> beam.CombinePerKey(_MergeCounts())
        | "CutPartition" >> beam.Map(_cut, limits)
        | "OneFeature" >> beam.GroupByKey()
        | "WriteVocabulary" >> beam.Map(_finish, limits, staging)
    )
