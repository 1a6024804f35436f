"""Writing and reading TFRecords of encoded rows (13 numbers, 26 ids), one measurement a process.

    python layouts.py MODE DIR ROWS     MODE: write_packed, write_examples, write_protobuf, write_tfx_bsl,
                                        read_packed:BATCH, read_examples:BATCH

write_tfx_bsl needs only tfx-bsl and NumPy; the others need this project.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NUMERIC = [f"I{i + 1}" for i in range(13)]
TEXT = [f"C{i + 1}" for i in range(26)]
MIN_SECONDS = 3.0  # of reading: the pipeline is repeated until then


def tensors(num_rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "numeric": rng.normal(size=(num_rows, len(NUMERIC))).astype(np.float32),
        "ids": rng.integers(0, 1_000_000, (num_rows, len(TEXT)), np.int32),
        "label": rng.integers(0, 2, num_rows).astype(np.float32),
        "weight": np.ones(num_rows, np.float32),
        "carry": np.zeros((num_rows, 0), np.float32),
    }


def layout_and_spec() -> tuple[Any, Any]:
    from pipeline.records.encoded import EncodedSpec, IdFeature
    from pipeline.records.packed import RowLayout

    spec = EncodedSpec(tuple(NUMERIC), tuple(IdFeature(c, 1_000_000) for c in TEXT))
    return RowLayout.of(spec), spec


def writer(mode: str, directory: Path, num_rows: int) -> Callable[[], None]:
    """The function to time; what it takes is made before."""
    if mode == "write_tfx_bsl":
        return _tfx_bsl_writer(directory, num_rows)
    import tensorflow as tf

    from pipeline.records.examples import write_examples
    from pipeline.records.packed import write_packed

    layout, spec = layout_and_spec()
    encoded = tensors(num_rows)
    rows = layout.pack(encoded)
    if mode == "write_packed":
        return lambda: write_packed(str(directory / "packed"), layout, rows)
    if mode == "write_examples":
        return lambda: write_examples(str(directory / "examples"), layout, spec, rows)

    def one_at_a_time() -> None:
        numbers, ids = encoded["numeric"].tolist(), encoded["ids"].tolist()
        with tf.io.TFRecordWriter(str(directory / "protobuf")) as out:
            for x, i in zip(numbers, ids, strict=True):
                example = tf.train.Example()
                feature = example.features.feature
                for name, value in zip(NUMERIC, x, strict=True):
                    feature[name].float_list.value.append(value)
                for name, value in zip(TEXT, i, strict=True):
                    feature[name].int64_list.value.append(value)
                feature["label"].float_list.value.append(0.0)
                feature["weight"].float_list.value.append(1.0)
                out.write(example.SerializeToString())

    return one_at_a_time


def _tfx_bsl_writer(directory: Path, num_rows: int) -> Callable[[], None]:
    import pyarrow as pa
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import RecordBatchToExamples

    encoded = tensors(num_rows)
    offsets = pa.array(np.arange(num_rows + 1, dtype=np.int64))

    def column(values: np.ndarray) -> Any:
        return pa.LargeListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values)))

    columns = {c: column(encoded["numeric"][:, i]) for i, c in enumerate(NUMERIC)}
    ids = encoded["ids"].astype(np.int64)
    columns.update({c: column(ids[:, i]) for i, c in enumerate(TEXT)})
    columns.update({c: column(encoded[c]) for c in ("label", "weight")})
    batch = pa.RecordBatch.from_pydict(columns)

    def run() -> None:
        with tf.io.TFRecordWriter(str(directory / "tfx_bsl")) as out:
            for start in range(0, num_rows, 1000):
                for example in RecordBatchToExamples(batch.slice(start, 1000)):
                    out.write(example)

    return run


def read(mode: str, directory: Path, num_rows: int) -> float:
    """Rows a second."""
    import tensorflow as tf

    from pipeline.records.dataset import unpacked_batches
    from pipeline.records.examples import decode_examples

    layout, spec = layout_and_spec()
    kind, batch = mode.split(":")
    if kind == "read_packed":
        records = tf.data.TFRecordDataset(str(directory / "packed")).map(layout.from_record)
        data = unpacked_batches(records.repeat(), layout, int(batch))
    else:
        records = tf.data.TFRecordDataset(str(directory / "examples")).repeat().batch(int(batch))
        data = records.map(lambda s: decode_examples(s, spec), num_parallel_calls=2)
    iterator = iter(data.prefetch(4))
    for _ in range(10):
        next(iterator)
    rows, start = 0, time.perf_counter()
    while time.perf_counter() - start < MIN_SECONDS:
        rows += int(next(iterator)["label"].shape[0])
    return rows / (time.perf_counter() - start)


def main(mode: str, directory: Path, num_rows: int) -> dict[str, Any]:
    if mode.startswith("read"):
        return {"rows_per_s": read(mode, directory, num_rows)}
    run = writer(mode, directory, num_rows)
    start = time.perf_counter()
    run()
    return {"rows_per_s": num_rows / (time.perf_counter() - start)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
