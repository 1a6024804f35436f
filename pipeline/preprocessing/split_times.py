"""Where a split by time cuts: thresholds to the minute, from counts of rows a minute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import DataError
from pipeline.preprocessing.row_fates import SplitTimes
from pipeline.schema import CategoricalFeature, FeatureSchema, SplitSpec, TimeSpec
from pipeline.sources import Block, read_block
from pipeline.values import parse_time

__all__ = ["minutes_of", "split_times", "time_alone"]


def time_alone(schema: FeatureSchema, time: TimeSpec) -> FeatureSchema:
    """The schema without its features: a pass that reads little more than the time."""
    only_time = CategoricalFeature(name="time", column=time.column)
    return schema.model_copy(update={"features": (only_time,), "carry": (), "weight": None})


def minutes_of(
    block: Block, schema: FeatureSchema, time: TimeSpec, marks: str
) -> list[tuple[int, int]]:
    """(minute since 1970, rows) of a block; leaves its mark of progress in `marks`."""
    found: dict[int, int] = {}
    num_rows = 0
    for chunk in read_block(block, schema):
        num_rows += chunk.num_rows
        seconds = parse_time(chunk.table[time.column], time.format)
        minutes, rows = np.unique(np.asarray(seconds) // 60, return_counts=True)
        for minute, count in zip(minutes.tolist(), rows.tolist(), strict=True):
            found[minute] = found.get(minute, 0) + count
    (Path(marks) / f"times-{block.index}-{num_rows}").touch()
    return list(found.items())


def split_times(counted: Sequence[tuple[int, int]], split: SplitSpec, time: TimeSpec) -> SplitTimes:
    """Thresholds that give validation and test their shares, the newest rows test.

    Args:
        counted: (minute since 1970, rows) in the order of time.
        split: the shares.
        time: where the time is.

    Raises:
        DataError: no row has a time.
    """
    if not counted:
        raise DataError("the input must have rows", "none with a readable time")
    minute = np.array([m for m, _ in counted])
    cumulative = np.cumsum([n for _, n in counted]) / sum(n for _, n in counted)

    def first_minute_above(share: float) -> int:
        at = int(np.searchsorted(cumulative, share, side="right"))
        return int(minute[at]) * 60 if at < len(minute) else int(minute[-1]) * 60 + 60

    test = first_minute_above(1 - split.test) if split.test else 2**62
    validation = first_minute_above(1 - split.test - split.validation)
    return SplitTimes(time, validation if split.validation else test, test)
