"""Warm-up: what is in the file, that TF Serving's replay takes it, that publishing replays it."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from pipeline.errors import GateError
from pipeline.transform.parity_sample import real_rows
from serving.export.manifest import verify_manifest, write_manifest
from serving.export.warmup_requests import (
    ALLOWED_BATCH_SIZES,
    MAX_WARMUP_RECORDS,
    WARMUP_PATH,
    WARMUP_SIGNATURES,
    read_warmup_requests,
    write_warmup_requests,
)
from serving.repository.version_check import loads_and_answers
from serving.server.servable import Servable
from serving.server.warmup_replay import replay_warmup


@pytest.fixture(scope="module")
def export_dir(layer_run):
    return layer_run.path / "export"


def test_every_allowed_size_of_every_signature_is_there(export_dir):
    found = []
    for signature, inputs in read_warmup_requests(export_dir):
        (rows,) = {len(array) for array in inputs.values()}
        found.append((signature, rows))
    expected = {(name, size) for name in WARMUP_SIGNATURES for size in ALLOWED_BATCH_SIZES}
    assert set(found) == expected
    assert len(found) == len(expected) <= MAX_WARMUP_RECORDS
    assert verify_manifest(export_dir).extra["warmup_batch_sizes"] == list(ALLOWED_BATCH_SIZES)


def test_the_rows_are_real_ones(export_dir, tiny_data):
    rows, _ = real_rows(tiny_data, 8)
    requests = {(s, len(next(iter(i.values())))): i for s, i in read_warmup_requests(export_dir)}
    texts = requests["compact", 8]["texts"]
    assert texts.tolist() == rows.texts.tolist()
    np.testing.assert_array_equal(requests["compact", 8]["numbers"], rows.numbers)


def test_the_servers_replay_takes_all_of_it(export_dir):
    servable = Servable("ctr", 1, str(export_dir))
    assert replay_warmup(servable) == len(WARMUP_SIGNATURES) * len(ALLOWED_BATCH_SIZES)
    servable.retire()


def test_the_file_stays_under_its_limit(tiny_data, tmp_path):
    rows, _ = real_rows(tiny_data, 64)
    assert write_warmup_requests(tmp_path, rows, max_bytes=40_000) == [1, 2, 4, 8, 16]
    assert (tmp_path / WARMUP_PATH).stat().st_size <= 41_000


def test_one_request_of_each_signature_is_there_however_large_a_row(tiny_data, tmp_path):
    """Without any, a real TF Serving loads an export without variables/, and every request fails."""
    rows, _ = real_rows(tiny_data, 4)
    assert write_warmup_requests(tmp_path, rows, max_bytes=1) == [1]
    assert [signature for signature, _ in read_warmup_requests(tmp_path)] == list(WARMUP_SIGNATURES)


def test_the_same_rows_are_the_same_bytes(tiny_data, tmp_path):
    rows, _ = real_rows(tiny_data, 4)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_warmup_requests(tmp_path / name, rows, batch_sizes=[1, 4])
    assert (tmp_path / "a" / WARMUP_PATH).read_bytes() == (
        tmp_path / "b" / WARMUP_PATH
    ).read_bytes()


@pytest.fixture
def broken(export_dir, tmp_path):
    """Makes a copy of the export with another warm-up file, its manifest in order."""

    def make(write):
        goal = tmp_path / "export"
        shutil.copytree(export_dir, goal)
        manifest = verify_manifest(goal)
        write(goal / WARMUP_PATH)
        write_manifest(goal, fingerprint=manifest.fingerprint, extra=manifest.extra)
        return goal

    return make


def test_publishing_replays_it(export_dir, broken):
    def unknown_input(path):
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.model_spec.signature_name = "compact"
        numbers = tf.make_tensor_proto(np.zeros([1, 3], np.float32))  # the model has 6
        log.predict_log.request.inputs["numbers"].CopyFrom(numbers)
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(log.SerializeToString())

    loads_and_answers(export_dir)
    with pytest.raises(GateError, match="must load and run"):
        loads_and_answers(broken(unknown_input))


def test_a_damaged_file_is_refused_before_anything_is_loaded(broken):
    export = broken(lambda path: path.write_bytes(path.read_bytes()[:-7]))
    with pytest.raises(GateError, match="warm-up requests must be readable"):
        loads_and_answers(export)


def test_an_older_export_without_warm_up_is_still_good(broken):
    assert list(read_warmup_requests(broken(lambda path: path.unlink()))) == []
