"""The same preprocessing in TensorFlow Transform, as its public examples write it.

Runs in an environment of its own (CLICKPARITY_TFT_PYTHON): tensorflow-transform 1.21, tfx-bsl 1.21.
Written after TFT's census example (Beam's CSV reading through TFXIO, AnalyzeAndTransformDataset, Examples).

    python tft_job.py OUT FILE...
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils
from tfx_bsl.coders.example_coder import RecordBatchToExamples
from tfx_bsl.public import tfxio

NUMERIC = [f"I{i + 1}" for i in range(13)]
TEXT = [f"C{i + 1}" for i in range(26)]
RAW = {
    "label": tf.io.FixedLenFeature([], tf.int64),
    **{c: tf.io.VarLenFeature(tf.float32) for c in NUMERIC},
    **{c: tf.io.VarLenFeature(tf.string) for c in TEXT},
}


def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
    outputs = {"label": inputs["label"]}
    for c in NUMERIC:
        dense = tf.squeeze(
            tf.sparse.to_dense(
                tf.SparseTensor(inputs[c].indices, inputs[c].values, [inputs[c].dense_shape[0], 1])
            ),
            axis=1,
        )
        outputs[c] = tft.scale_to_z_score(tf.math.log1p(tf.maximum(dense, 0.0)))
    for c in TEXT:
        dense = tf.squeeze(
            tf.sparse.to_dense(
                tf.SparseTensor(inputs[c].indices, inputs[c].values, [inputs[c].dense_shape[0], 1]),
                "",
            ),
            axis=1,
        )
        outputs[c] = tft.compute_and_apply_vocabulary(
            dense, frequency_threshold=2, num_oov_buckets=1, vocab_filename=c
        )
    return outputs


def main(out: Path, files: list[str]) -> dict[str, Any]:
    start = time.perf_counter()
    schema = schema_utils.schema_from_feature_spec(RAW)
    metadata = dataset_metadata.DatasetMetadata(schema)
    source = tfxio.BeamRecordCsvTFXIO(
        physical_format="text",
        column_names=["label", *NUMERIC, *TEXT],
        delimiter="\t",
        schema=metadata.schema,
    )
    pipeline = beam.Pipeline(runner=FnApiRunner())
    with pipeline, tft_beam.Context(temp_dir=tempfile.mkdtemp(), use_deep_copy_optimization=True):
        raw = (
            pipeline
            | beam.Create(files)
            | beam.io.ReadAllFromText(coder=beam.coders.BytesCoder())
            | source.BeamSource()
        )
        (encoded, encoded_metadata), _ = (
            raw,
            source.TensorAdapterConfig(),
        ) | tft_beam.AnalyzeAndTransformDataset(preprocessing_fn, output_record_batches=True)
        _ = encoded_metadata
        examples = encoded | beam.FlatMapTuple(lambda batch, _: RecordBatchToExamples(batch))
        shuffled = examples | beam.Reshuffle()
        shuffled | beam.io.WriteToTFRecord(str(out / "train"), num_shards=4)
        total = examples | beam.combiners.Count.Globally()
        total | beam.Map(lambda n: (out / "rows").write_text(str(n)))
        out.mkdir(parents=True)
    seconds = time.perf_counter() - start
    return {"rows": int((out / "rows").read_text()), "phases": {"all": seconds}}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))
