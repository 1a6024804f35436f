"""The same preprocessing as a row-at-a-time Beam pipeline: an element is a line, as tutorials do it.

python beam_rows_job.py OUT FILE...
"""

from __future__ import annotations

import json
import math
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

NUM_NUMERIC, NUM_TEXT, SHARDS = 13, 26, 4


def parse(line: str) -> tuple[int, list[float], list[str], int]:
    """A line -> label, log1p of the numbers, the texts, its split."""
    label, *fields = line.split("\t")
    numbers = [math.log1p(float(f)) if f else 0.0 for f in fields[:NUM_NUMERIC]]
    u = zlib.crc32(line.encode()) % 10
    return int(label), numbers, fields[NUM_NUMERIC:], 2 if u == 0 else 1 if u == 1 else 0


class Moments(beam.CombineFn):
    """(count, sums, sums of squares) of the numbers."""

    def create_accumulator(self) -> list[Any]:  # noqa: D102
        return [0, [0.0] * NUM_NUMERIC, [0.0] * NUM_NUMERIC]

    def add_input(self, accumulator: list[Any], numbers: list[float]) -> list[Any]:  # noqa: D102
        accumulator[0] += 1
        for i, x in enumerate(numbers):
            accumulator[1][i] += x
            accumulator[2][i] += x * x
        return accumulator

    def merge_accumulators(self, accumulators: Any) -> list[Any]:  # noqa: D102
        total = self.create_accumulator()
        for n, sums, squares in accumulators:
            total[0] += n
            total[1] = [a + b for a, b in zip(total[1], sums, strict=True)]
            total[2] = [a + b for a, b in zip(total[2], squares, strict=True)]
        return total

    def extract_output(self, accumulator: list[Any]) -> list[Any]:  # noqa: D102
        return accumulator


def values(row: tuple[int, list[float], list[str], int]) -> Iterator[tuple[tuple[int, str], int]]:
    for i, text in enumerate(row[2]):
        if text:
            yield (i, text), 1


def vocabulary(element: tuple[int, Any]) -> tuple[int, dict[str, int]]:
    """A feature's counted values -> its ids, most frequent first."""
    feature, counted = element
    kept = sorted((v for v in counted if v[1] >= 2), key=lambda v: (-v[1], v[0]))
    return feature, {text: 2 + i for i, (text, _) in enumerate(kept)}


class Encode(beam.DoFn):
    """A row -> ((split, shard), packed bytes)."""

    def process(  # noqa: D102
        self, row: Any, moments: list[Any], ids: dict[int, dict[str, int]]
    ) -> Iterator[Any]:
        label, numbers, texts, split = row
        n = moments[0]
        scaled = []
        for i, x in enumerate(numbers):
            mean = moments[1][i] / n
            scaled.append((x - mean) / math.sqrt(max(moments[2][i] / n - mean * mean, 1e-12)))
        found = [ids[i].get(text, 1) if text else 0 for i, text in enumerate(texts)]
        packed = struct.pack("<13f26i2f", *scaled, *found, label, 1.0)
        yield (split, zlib.crc32(packed) % SHARDS), packed


def write(element: tuple[tuple[int, int], Any], out: str) -> int:
    """The rows of a shard, shuffled with a seed, as a TFRecord of packed records."""
    import random

    import tensorflow as tf

    (split, shard), rows = element
    rows = sorted(rows)
    random.Random(split * SHARDS + shard).shuffle(rows)
    directory = Path(out) / ("train", "validation", "test")[split]
    directory.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(directory / f"part-{shard:05d}.tfrecord")) as writer:
        for start in range(0, len(rows), 4096):
            writer.write(b"".join(rows[start : start + 4096]))
    return len(rows)


def main(out: Path, files: list[str]) -> dict[str, Any]:
    start = time.perf_counter()
    out.mkdir(parents=True)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = (
            pipeline | beam.Create(files) | beam.io.ReadAllFromText() | "Parse" >> beam.Map(parse)
        )
        train = rows | "Train" >> beam.Filter(lambda row: row[3] == 0)
        moments = train | beam.Map(lambda row: row[1]) | beam.CombineGlobally(Moments())
        ids = (
            train
            | beam.FlatMap(values)
            | "Count" >> beam.CombinePerKey(sum)
            | beam.MapTuple(lambda key, count: (key[0], (key[1], count)))
            | "OneFeature" >> beam.GroupByKey()
            | beam.Map(vocabulary)
        )
        encoded = rows | beam.ParDo(
            Encode(), beam.pvalue.AsSingleton(moments), beam.pvalue.AsDict(ids)
        )
        written = encoded | "Shuffle" >> beam.GroupByKey() | "Write" >> beam.Map(write, str(out))
        total = written | beam.CombineGlobally(sum)
        total | beam.Map(lambda n: (out / "rows").write_text(str(n)))
    seconds = time.perf_counter() - start
    return {"rows": int((out / "rows").read_text()), "phases": {"all": seconds}}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))
