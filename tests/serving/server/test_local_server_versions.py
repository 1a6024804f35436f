"""Which version answers: polling, swaps under load, warm-up, failed loads, deletion."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from pipeline.errors import ClickparityError, ConfigError
from serving.export.warmup_requests import MAX_WARMUP_RECORDS, WARMUP_PATH
from serving.server.local_server import LocalServer
from serving.server.servable import Servable
from serving.server.status import ServingError
from serving.server.versions import State
from serving.server.warmup_replay import replay_warmup
from tests.serving.server_fixtures import (
    MODEL,
    error_of,
    exported,
    float32,
    predict,
    predict_request,
    publish,
    rest,
)

PATH = f"/v1/models/{MODEL}"


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "models"
    directory.mkdir()
    return directory


def serving(models_dir: Path, **options: object) -> LocalServer:
    return LocalServer(models_dir, poll_interval_s=0.02, **options)  # type: ignore[arg-type]


def live_version(server: LocalServer, name: str = MODEL) -> int | str:
    """The version that answers, read off its answer (the logit of an empty row is its number)."""
    body = {"inputs": {"price": [0], "city": [""]}}
    status, answer = rest(server.rest_address, "POST", f"/v1/models/{name}:predict", body)
    if status != 200:
        return error_of(answer)
    return int(json.loads(answer)["outputs"]["logit"][0])


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def write_warmup(version_dir: Path, *records: bytes) -> None:
    path = version_dir / WARMUP_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def predict_log(signature_name: str, **inputs: object) -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(predict_request(signature_name, **inputs))  # type: ignore[arg-type]
    return log.SerializeToString()


GOOD_RECORD = predict_log("", price=float32([1.0]), city=["a"])
BAD_RECORD = predict_log("fails_on_negative", price=float32([-1.0]))


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """A private copy of the SavedModel with bias 2, to spoil before it is published."""
    return shutil.copytree(exported(2.0), tmp_path / "staged")


def test_the_greatest_integer_serves_and_everything_else_is_ignored(models_dir: Path) -> None:
    publish(exported(1.0), models_dir, 9)
    publish(exported(2.0), models_dir, 10)  # as text, "9" is greater
    shutil.copytree(exported(3.0), models_dir / MODEL / ".tmp-11")
    shutil.copytree(exported(3.0), models_dir / MODEL / "latest")
    (models_dir / MODEL / "manifest.json").write_text("{}")
    (models_dir / ".hidden" / "1").mkdir(parents=True)
    with serving(models_dir) as server:
        assert server.repository.live_versions() == {MODEL: 10}
        assert live_version(server) == 2
        time.sleep(0.1)  # several polls
        assert server.repository.live_versions() == {MODEL: 10}


def test_every_directory_is_a_model_also_one_that_comes_later(models_dir: Path) -> None:
    publish(exported(1.0), models_dir, 1, name="first")
    with serving(models_dir) as server:
        assert "Servable not found" in str(live_version(server, "second"))
        publish(exported(2.0), models_dir, 1, name="second")
        assert server.wait_until_available("second") == 1
        assert (live_version(server, "first"), live_version(server, "second")) == (1, 2)


def test_one_model_of_many_by_name(models_dir: Path) -> None:
    publish(exported(1.0), models_dir, 1, name="first")
    publish(exported(2.0), models_dir, 1, name="second")
    with serving(models_dir, name="second") as server:
        assert server.repository.live_versions() == {"second": 1}


def test_a_swap_under_load_fails_no_request(models_dir: Path) -> None:
    publish(exported(1.0), models_dir, 1)
    stop = threading.Event()
    failures: list[object] = []
    seen: list[list[int]] = []

    def keep_asking_rest() -> None:
        versions: list[int] = []
        seen.append(versions)
        while not stop.is_set():
            version = live_version(server)
            failures.append(version) if isinstance(version, str) else versions.append(version)

    def keep_asking_grpc() -> None:
        versions: list[int] = []
        seen.append(versions)
        request = predict_request(price=float32([0, 0]), city=["", ""])
        with grpc.insecure_channel(server.grpc_address) as channel:
            while not stop.is_set():
                try:
                    logits = predict(channel, request)["logit"]
                    assert logits[0] == logits[1]  # one version answers a request, not two
                    versions.append(int(logits[0]))
                except Exception as error:
                    failures.append(error)

    with serving(models_dir) as server:
        threads = [
            threading.Thread(target=target)
            for target in (keep_asking_rest, keep_asking_grpc, keep_asking_rest, keep_asking_grpc)
        ]
        for thread in threads:
            thread.start()
        try:
            for version in (2, 3):
                publish(exported(float(version)), models_dir, version)
                server.wait_until_available(MODEL, version)
                for versions in seen:
                    more = len(versions) + 5
                    eventually(lambda versions=versions, more=more: len(versions) > more)  # type: ignore[misc]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert failures == []
    for versions in seen:
        assert versions == sorted(versions)  # never back to an older one
        assert set(versions) == {1, 2, 3}


def test_the_old_version_answers_until_the_new_one_is_warm(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(exported(1.0), models_dir, 1)
    warming, go_on = threading.Event(), threading.Event()

    def slow_warmup(servable: Servable) -> int:
        warming.set()
        assert go_on.wait(30)
        return 0

    with serving(models_dir) as server:
        monkeypatch.setattr("serving.server.repository_watch.replay_warmup", slow_warmup)
        publish(exported(2.0), models_dir, 2)
        assert warming.wait(30)
        assert live_version(server) == 1
        status = json.loads(rest(server.rest_address, "GET", PATH)[1])["model_version_status"]
        assert [(one["version"], one["state"]) for one in status] == [
            ("2", "LOADING"),
            ("1", "AVAILABLE"),
        ]
        go_on.set()
        server.wait_until_available(MODEL, 2)
        assert live_version(server) == 2
        eventually(lambda: server.repository.states(MODEL)[1].state is State.END)


def test_a_request_that_runs_keeps_its_version_open(models_dir: Path) -> None:
    publish(exported(1.0), models_dir, 1)
    with serving(models_dir) as server:
        with server.repository.servable(MODEL) as old:
            publish(exported(2.0), models_dir, 2)
            server.wait_until_available(MODEL, 2)
            eventually(lambda: server.repository.states(MODEL)[1].state is State.END)
            assert old.predict_arrays("one_to_one", {"price": float32([0])})["logit"] == [1.0]
        with pytest.raises(ServingError, match="Session has been closed"):
            old.predict_arrays("one_to_one", {"price": float32([0])})


def _spoil_graph(version_dir: Path) -> None:
    graph = version_dir / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])


def _spoil_variables(version_dir: Path) -> None:
    (data,) = (version_dir / "variables").glob("variables.data-*")
    data.unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        _spoil_graph,
        _spoil_variables,
        lambda version_dir: (version_dir / "saved_model.pb").unlink(),
        lambda version_dir: write_warmup(version_dir, BAD_RECORD),
        lambda version_dir: write_warmup(version_dir, b"\xff\xff\xff"),
        lambda version_dir: write_warmup(version_dir, *[GOOD_RECORD] * (MAX_WARMUP_RECORDS + 1)),
        lambda version_dir: (
            (version_dir / "assets.extra").mkdir()
            or (version_dir / WARMUP_PATH).write_bytes(b"this is no TFRecord file at all")
        ),
    ],
    ids=[
        "half a graph",
        "no variables",
        "no graph",
        "failing warm-up",
        "warm-up of another proto",
        "1001 warm-up records",
        "warm-up in no TFRecord",
    ],
)
def test_a_version_that_does_not_load_is_reported_and_changes_nothing(
    models_dir: Path, staged: Path, spoil: Callable[[Path], object]
) -> None:
    publish(exported(1.0), models_dir, 1)
    spoil(staged)
    with serving(models_dir, max_load_retries=0) as server:
        publish(staged, models_dir, 2)
        eventually(lambda: 2 in server.repository.states(MODEL))
        eventually(lambda: server.repository.states(MODEL)[2].state is State.END)
        assert live_version(server) == 1
        status = json.loads(rest(server.rest_address, "GET", PATH + "/versions/2")[1])
        (report,) = status["model_version_status"]
        assert report["status"]["error_code"] != "OK"
        assert len(report["status"]["error_message"]) > 10
        _, answer = rest(server.rest_address, "GET", PATH + "/versions/2/metadata")
        assert error_of(answer) == f"Servable not found for request: Specific({MODEL}, 2)"
        # The next number is a fresh start.
        publish(exported(3.0), models_dir, 3)
        server.wait_until_available(MODEL, 3)
        assert live_version(server) == 3


def test_a_failed_load_is_tried_again_so_often_and_no_more(models_dir: Path, staged: Path) -> None:
    (staged / "saved_model.pb").unlink()
    publish(staged, models_dir, 1)
    with serving(models_dir, max_load_retries=2, load_retry_interval_s=0.0) as server:
        eventually(lambda: server.repository.states(MODEL)[1].state is State.END)
        assert server.repository.states(MODEL)[1].num_failures == 3
        time.sleep(0.1)  # several polls
        assert server.repository.states(MODEL)[1].num_failures == 3
        with pytest.raises(ClickparityError, match="saved_model") as caught:
            server.wait_until_available(MODEL, timeout_s=0.01)
        assert caught.value.exit_code == 1
        # Deleted and published whole under the same number: that is another version.
        shutil.rmtree(models_dir / MODEL / "1")
        eventually(lambda: server.repository.states(MODEL)[1].num_failures == 0)
        publish(exported(1.0), models_dir, 1)
        assert server.wait_until_available(MODEL) == 1


def test_a_retry_succeeds_once_the_cause_is_gone(models_dir: Path, staged: Path) -> None:
    graph = (staged / "saved_model.pb").read_bytes()
    (staged / "saved_model.pb").unlink()
    publish(staged, models_dir, 1)
    with serving(models_dir, max_load_retries=10_000, load_retry_interval_s=0.0) as server:
        eventually(lambda: server.repository.states(MODEL)[1].num_failures > 1)
        assert server.repository.states(MODEL)[1].state is State.LOADING
        (models_dir / MODEL / "1" / "saved_model.pb").write_bytes(graph)
        server.wait_until_available(MODEL, 1)
        assert live_version(server) == 2  # bias of the staged model
        assert server.repository.states(MODEL)[1].error_code == 0


def test_deleting_the_latest_rolls_back_and_deleting_all_unloads(models_dir: Path) -> None:
    publish(exported(1.0), models_dir, 1)
    publish(exported(2.0), models_dir, 2)
    with serving(models_dir) as server:
        assert live_version(server) == 2
        shutil.rmtree(models_dir / MODEL / "2")
        server.wait_until_available(MODEL, 1)
        assert live_version(server) == 1
        shutil.rmtree(models_dir / MODEL / "1")
        eventually(
            lambda: live_version(server) == f"Servable not found for request: Latest({MODEL})"
        )
        states = server.repository.states(MODEL)
        assert {version: state.state for version, state in states.items()} == {
            2: State.END,
            1: State.END,
        }
        publish(exported(3.0), models_dir, 3)
        server.wait_until_available(MODEL, 3)
        assert live_version(server) == 3


def test_a_directory_that_disappears_whole_unloads_its_model(models_dir: Path) -> None:
    publish(exported(1.0), models_dir, 1)
    with serving(models_dir) as server:
        shutil.rmtree(models_dir)
        eventually(lambda: server.repository.live_versions() == {})


def test_warm_up_replays_every_kind_of_record(staged: Path) -> None:
    classify, regress = prediction_log_pb2.PredictionLog(), prediction_log_pb2.PredictionLog()
    for request, signature_name in (
        (classify.classify_log.request, "classify"),
        (regress.regress_log.request, "regress"),
    ):
        request.model_spec.signature_name = signature_name
        request.input.example_list.examples.add()
    several = prediction_log_pb2.PredictionLog()
    task = several.multi_inference_log.request.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name, task.model_spec.signature_name = MODEL, "regress"
    several.multi_inference_log.request.input.example_list.examples.add()
    records = [one.SerializeToString() for one in (classify, regress, several)]
    write_warmup(staged, GOOD_RECORD, *records, b"")
    servable = Servable(MODEL, 1, str(staged))
    assert replay_warmup(servable) == 5
    # A record that fails says so: each kind is really run.
    regress.regress_log.request.ClearField("input")
    write_warmup(staged, regress.SerializeToString())
    with pytest.raises(Exception, match="Input is empty"):
        replay_warmup(servable)
    task.model_spec.signature_name = "nope"
    write_warmup(staged, several.SerializeToString())
    with pytest.raises(Exception, match="signature not found in model graph: nope"):
        replay_warmup(servable)
    servable.retire()


def test_a_wrong_dtype_is_named_by_the_order_of_the_graphs_names() -> None:
    """DirectSession::Run sorts the feeds; the order of a request's map is nobody's."""
    servable = Servable(MODEL, 1, str(exported(1.0)))
    feeds = {
        "serving_default_price:0": np.array([1], np.int32),
        "serving_default_city:0": np.array([b"a"], object),
    }
    with pytest.raises(ServingError, match=r"Expects arg\[1\] to be float but int32 is provided"):
        servable.run(feeds, ["StatefulPartitionedCall_5:0"])
    servable.retire()


def test_no_directory_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"), LocalServer(tmp_path / "nowhere"):
        pass


def test_an_empty_directory_is_served_until_something_comes(models_dir: Path) -> None:
    with serving(models_dir) as server:
        assert rest(server.rest_address, "GET", "/healthz")[0] == 503
        publish(exported(1.0), models_dir, 1)
        server.wait_until_available(MODEL)
        assert rest(server.rest_address, "GET", "/healthz")[0] == 200
