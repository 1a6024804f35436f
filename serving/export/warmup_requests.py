"""Warm-up requests: what TF Serving replays before a version serves its first caller.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of PredictionLog. The first request of a
batch size pays for what TensorFlow allocates and picks at that size, so there is one for every
allowed batch size and signature, of real rows: they also bring the busiest rows of the embedding
tables into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serving.export.batch_sizes import ALLOWED_BATCH_SIZES

if TYPE_CHECKING:
    from pipeline.transform.raw_rows import RawRows

__all__ = [
    "ALLOWED_BATCH_SIZES",
    "MAX_WARMUP_BYTES",
    "MAX_WARMUP_RECORDS",
    "WARMUP_PATH",
    "WARMUP_SIGNATURES",
    "read_warmup_requests",
    "write_warmup_requests",
]

WARMUP_PATH = "assets.extra/tf_serving_warmup_requests"
WARMUP_SIGNATURES = ("serving_default", "compact", "serialized_examples")
MAX_WARMUP_RECORDS = 1000  # TF Serving refuses a file with more
MAX_WARMUP_BYTES = 8 << 20
"""What the file may grow to. Larger batches are left out beyond it (rows with images are large)."""


def write_warmup_requests(
    export_dir: Path,
    rows: RawRows,
    *,
    batch_sizes: Sequence[int] = ALLOWED_BATCH_SIZES,
    max_bytes: int = MAX_WARMUP_BYTES,
) -> list[int]:
    """Writes the warm-up file of an export.

    Args:
        export_dir: the SavedModel; its manifest is written afterwards.
        rows: real raw rows, at least one; repeated where a batch is larger.
        batch_sizes: rows of a request, one of each for every signature.
        max_bytes: batch sizes at which the file would grow beyond this are left out, but for the
            least.

    Returns:
        The batch sizes that are in the file, rising.
    """
    import tensorflow as tf

    written: list[int] = []
    records: list[bytes] = []
    total_bytes = 0
    for size in sorted(batch_sizes):
        batch = rows.take(np.arange(size) % len(rows))
        forms = (batch.by_name(), batch.compact(), batch.examples())
        logs = [_log(*pair) for pair in zip(WARMUP_SIGNATURES, forms, strict=True)]
        total_bytes += sum(map(len, logs))
        too_much = total_bytes > max_bytes or len(records) + len(logs) > MAX_WARMUP_RECORDS
        # The least one always: without a request TF Serving serves an export whose variables are gone.
        if written and too_much:
            break
        records += logs
        written.append(size)
    path = export_dir / WARMUP_PATH
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return written


def _log(signature_name: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """A serialized PredictionLog of one Predict request; the same bytes for the same rows."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    # TF Serving replays a request in the version that it lies in, whatever model it names.
    request.model_spec.name, request.model_spec.signature_name = "warmup", signature_name
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    serialized: bytes = log.SerializeToString(deterministic=True)
    return serialized


def read_warmup_requests(export_dir: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The (signature, inputs) of an export's warm-up file; none when it has no such file.

    Raises:
        ValueError: a record is not a Predict request.
        tf.errors.DataLossError: the file is damaged.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = export_dir / WARMUP_PATH
    if not path.is_file():
        return
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        kind = log.WhichOneof("log_type")
        if kind != "predict_log":
            raise ValueError(f"{path} holds a {kind}, clickparity writes Predict requests")
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        yield request.model_spec.signature_name, inputs
