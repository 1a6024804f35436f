"""Replays `assets.extra/tf_serving_warmup_requests`, as TF Serving does before a version serves."""

from __future__ import annotations

import posixpath

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.export.warmup_requests import MAX_WARMUP_RECORDS, WARMUP_PATH
from serving.server.servable import Servable
from serving.server.status import invalid_argument, unimplemented

__all__ = ["replay_warmup"]


def replay_warmup(servable: Servable) -> int:
    """Runs every recorded request once; returns how many. No file is no fault.

    Raises:
        ServingError: a record does not parse, fails, or is one too many: do not serve this.
        tf.errors.OpError: the file is not a TFRecord.
    """
    path = posixpath.join(servable.path, WARMUP_PATH)
    if not tf.io.gfile.exists(path):
        return 0
    num_records = 0
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        num_records += 1
        if num_records > MAX_WARMUP_RECORDS:
            raise invalid_argument(
                f"Number of warmup records exceeds the maximum ({MAX_WARMUP_RECORDS}) at {path}"
            )
        log = prediction_log_pb2.PredictionLog()
        try:
            log.ParseFromString(record)
        except DecodeError:
            raise invalid_argument(
                f"Failed to parse warmup record: {record[:100]!r} from {path}"
            ) from None
        _replay(servable, log)
    return num_records


def _replay(servable: Servable, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        servable.predict(log.predict_log.request)
    elif kind == "classify_log":
        servable.classify(log.classify_log.request)
    elif kind == "regress_log":
        servable.regress(log.regress_log.request)
    elif kind == "multi_inference_log":
        servable.multi_inference(log.multi_inference_log.request)
    elif kind is not None:  # TF Serving ignores an empty record
        raise unimplemented(f"Unsupported log_type for warmup: {kind}")
