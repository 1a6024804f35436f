"""The statistics pass: blocks -> partial statistics and vocabularies. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.preprocessing.parsed_rows import ParsedRows, code_counts
from pipeline.preprocessing.row_fates import SplitTimes, assign_splits, examples_of
from pipeline.preprocessing.vocabulary_pass import to_bytes
from pipeline.records.data_directory import SPLITS
from pipeline.schema import (
    CROSS_SEPARATOR,
    CrossFeature,
    DatetimeFeature,
    FeatureSchema,
    NumericFeature,
    SequenceColumn,
    VocabularyFeature,
    vocabulary_owner,
)
from pipeline.sources import Block, Chunk, Reject
from pipeline.sources.columns import as_float32
from pipeline.statistics.feature_statistics import (
    NumericStatistics,
    PartialStatistics,
    value_counts,
)
from pipeline.statistics.times import TimeStatistics
from pipeline.statistics.vocabulary import merge_counts, one_array, partition_of
from pipeline.step_directory import write_atomically
from pipeline.values import ColumnRule, column_rules, list_items, parse_time

__all__ = ["CountRows", "MergePartials", "count_chunk", "text_features", "write_pickle"]


def counted_values(
    feature: Any, table: pa.Table, rules: dict[str, ColumnRule]
) -> tuple[pa.Array, int]:
    """The values of a text feature in some rows (empty ones included), and how many rows lack it."""
    if isinstance(feature, CrossFeature):
        columns = [table[c].combine_chunks() for c in feature.of]
        joined = pc.binary_join_element_wise(*columns, CROSS_SEPARATOR.encode())
        absent = pc.equal(columns[0], b"")
        for column in columns[1:]:
            absent = pc.or_(absent, pc.equal(column, b""))
        return pc.if_else(absent, b"", joined), pc.sum(absent).as_py() or 0
    column = one_array(table[feature.column])
    if isinstance(feature, SequenceColumn):
        return list_items(column, dataclasses.replace(rules[feature.column], kind="list",
                                                      separator=feature.separator))  # fmt: skip
    return column, pc.sum(pc.equal(column, b"")).as_py() or 0


def text_features(schema: FeatureSchema) -> list[Any]:
    """Features that have a vocabulary, their own or a shared one."""
    return [f for f in schema.features if isinstance(f, VocabularyFeature)]


def count_chunk(
    chunk: Chunk, block: int, schema: FeatureSchema, times: SplitTimes | None
) -> tuple[PartialStatistics, dict[str, pa.Table]]:
    """Statistics of one chunk, its columns coded or not: the pure function under the DoFn.

    Returns:
        The partial statistics, and by vocabulary owner the counts over the training rows.
    """
    part = PartialStatistics(input_rows=chunk.num_rows)
    for reject in chunk.rejects:
        part.rejected_rows += reject.rows
        part.reasons[reject.kind] += reject.rows
    split = assign_splits(chunk, block, schema, times)
    examples = examples_of(chunk, schema)
    example_split = split[examples.index]
    for i, name in enumerate(SPLITS):
        part.split_rows[name] = int((example_split == i).sum())
    in_train = example_split == 0
    weight, label = examples.weight.astype(np.float64), examples.label > 0
    part.label_weight = Fraction(float(weight[in_train].sum()))
    part.click_weight = Fraction(float(weight[in_train & label].sum()))
    seconds_of = _Seconds(chunk.table)
    if schema.time is not None and chunk.table.num_rows:
        seconds = seconds_of(schema.time.column, schema.time.format)
        hours = np.asarray(pc.fill_null(seconds, -1))[examples.index] // 3600
        for hour in np.unique(hours[hours >= 0]):
            at = hours == hour
            part.hours[int(hour)] = (int(at.sum()), int((at & label).sum()))
    train = chunk.table.filter(pa.array(split == 0))
    for f in schema.features:
        if isinstance(f, NumericFeature):
            part.numeric[f.name] = NumericStatistics.of(as_float32(train[f.column]), f)
    part.times = _time_statistics(chunk.table, pa.array(split == 0), seconds_of, schema)
    by_name = {f.name: f for f in schema.features}
    rules = column_rules(schema)
    counts: dict[str, list[pa.Table]] = {}
    for f in text_features(schema):
        counted, missing = _counts_of(f, train, rules)
        part.missing[f.name] += missing
        part.present[f.name] += train.num_rows - missing
        owner: Any = by_name[vocabulary_owner(f)]
        if owner.max_vocab_size:
            counts.setdefault(owner.name, []).append(counted)
    return part, {name: merge_counts(tables) for name, tables in counts.items()}


class _Seconds:
    """The time columns of some rows, each parsed once a format."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._parsed: dict[tuple[str, str], pa.Array] = {}

    def __call__(self, column: str, time_format: str) -> pa.Array:
        """Seconds since 1970, int64 [rows], null where a text does not fit."""
        key = (column, time_format)
        if key not in self._parsed:
            self._parsed[key] = parse_time(self._table[column], time_format)
        return self._parsed[key]


def _time_statistics(
    table: pa.Table, chosen: pa.Array, seconds_of: _Seconds, schema: FeatureSchema
) -> dict[str, TimeStatistics]:
    """By datetime feature, over the chosen rows."""
    return {
        f.name: TimeStatistics.of(
            one_array(table[f.column]).filter(chosen), seconds_of(f.column, f.format).filter(chosen)
        )
        for f in schema.features
        if isinstance(f, DatetimeFeature)
    }


def _counts_of(feature: Any, table: pa.Table, rules: dict[str, ColumnRule]) -> tuple[pa.Table, int]:
    """(table(value, count) of a text feature's non-empty values, how many rows lack it)."""
    if not isinstance(feature, CrossFeature):
        column = one_array(table[feature.column])
        if pa.types.is_dictionary(column.type):
            return code_counts(column)
    values, missing = counted_values(feature, table, rules)
    return value_counts(values), missing


class CountRows(beam.DoFn):
    """Block -> ('partial') PartialStatistics; main output ((feature, partition), Arrow counts)."""

    def __init__(
        self, schema: FeatureSchema, times: SplitTimes | None, partitions: int, staging: str
    ) -> None:
        self._schema, self._times, self._partitions = schema, times, partitions
        self._staging = staging

    def process(self, block: Block) -> Iterator[Any]:
        """Reads a block; writes its rejects and its mark of progress beside."""
        parts, counts, rejects = [], {}, []  # type: ignore[var-annotated]
        for chunk in ParsedRows(self._staging, self._schema).parse(block):
            part, tables = count_chunk(chunk, block.index, self._schema, self._times)
            parts.append(part)
            rejects += chunk.rejects
            for name, table in tables.items():
                counts[name] = merge_counts([counts[name], table]) if name in counts else table
        merged = PartialStatistics.merge(parts)
        _write_rejects(Path(self._staging) / "rejects", block, rejects)
        for name, table in counts.items():
            place = partition_of(one_array(table["value"]), self._partitions)
            for p in np.unique(place):
                yield (name, int(p)), to_bytes(table.filter(pa.array(place == p)))
        yield beam.pvalue.TaggedOutput("partial", merged)
        mark = Path(self._staging) / "progress" / f"count-{block.index}-{merged.input_rows}"
        mark.touch()


def _write_rejects(directory: Path, block: Block, rejects: list[Reject]) -> None:
    if rejects:
        lines = "".join(json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in rejects)
        write_atomically(directory / f"block-{block.index:05d}.jsonl", lines)


class MergePartials(beam.CombineFn):
    """PartialStatistics of all blocks -> one; exact, so the order does not matter."""

    def create_accumulator(self) -> list[PartialStatistics]:
        """Nothing yet."""
        return []

    def add_input(
        self, accumulator: list[PartialStatistics], element: PartialStatistics
    ) -> list[PartialStatistics]:
        """Merged now and then, so that it stays small."""
        accumulator.append(element)
        return [PartialStatistics.merge(accumulator)] if len(accumulator) >= 32 else accumulator

    def merge_accumulators(
        self, accumulators: Iterable[list[PartialStatistics]]
    ) -> list[PartialStatistics]:
        """One part again."""
        return [PartialStatistics.merge(p for a in accumulators for p in a)]

    def extract_output(self, accumulator: list[PartialStatistics]) -> PartialStatistics:
        """The whole."""
        return PartialStatistics.merge(accumulator)


def write_pickle(value: Any, path: str) -> None:
    """How a small result leaves the pipeline: a file in the staging directory."""
    write_atomically(Path(path), pickle.dumps(value))
