"""Starting, stopping, limits, metrics and health; the real server in the embedded one's place."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from pipeline.errors import ClickparityError, ConfigError
from serving.server import local_server
from serving.server.local_server import LocalServer
from serving.server.servable import Servable
from serving.server.tensorflow_model_server import BINARY
from tests.serving.server_fixtures import (
    MODEL,
    call,
    error_of,
    exported,
    float32,
    predict,
    predict_request,
    publish,
    rest,
)

PREDICT = f"/v1/models/{MODEL}:predict"
BODY = {"inputs": {"price": [2], "city": ["ab"]}}  # logit 2.5 on version 1


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    publish(exported(1.0), tmp_path / "models", 1)
    return tmp_path / "models"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Semaphore, threading.Event]]:
    """Holds every run of a model: a semaphore that counts arrivals, an event that lets them go."""
    arrived, go_on = threading.Semaphore(0), threading.Event()
    run = Servable.run

    def slow_run(*args: object) -> object:
        arrived.release()
        assert go_on.wait(60)
        return run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Servable, "run", slow_run)
    yield arrived, go_on
    go_on.set()


def in_thread(results: list[object], call_it: object) -> threading.Thread:
    def target() -> None:
        try:
            results.append(call_it())  # type: ignore[operator]
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    return thread


def refuses_rest(server: LocalServer) -> bool:
    host, port = server.rest_address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def refuses_grpc(server: LocalServer) -> bool:
    with grpc.insecure_channel(server.grpc_address) as channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


@pytest.mark.parametrize("wire", ["rest", "grpc"])
def test_requests_that_run_are_answered_when_the_server_stops(
    models_dir: Path, held: tuple[threading.Semaphore, threading.Event], wire: str
) -> None:
    arrived, go_on = held
    results: list[object] = []
    server = LocalServer(models_dir)
    server.start()
    idle = http.client.HTTPConnection(server.rest_address)
    idle.request("GET", f"/v1/models/{MODEL}")
    idle.getresponse().read()  # stays open: it must not hold up the stop
    with grpc.insecure_channel(server.grpc_address) as channel:
        request = predict_request(price=float32([2]), city=["ab"])
        asking = (
            in_thread(results, lambda: rest(server.rest_address, "POST", PREDICT, BODY)[0])
            if wire == "rest"
            else in_thread(results, lambda: predict(channel, request)["logit"].tolist())
        )
        assert arrived.acquire(timeout=30)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        refuses = refuses_rest if wire == "rest" else refuses_grpc
        deadline = time.monotonic() + 30
        while not refuses(server):  # new requests are refused while the old one still runs
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert stopping.is_alive()
        go_on.set()
        asking.join(30)
        stopping.join(30)
    assert results == ([200] if wire == "rest" else [[2.5]])
    assert refuses_rest(server)
    assert refuses_grpc(server)


def test_a_server_that_was_not_started_has_no_address(models_dir: Path) -> None:
    server = LocalServer(models_dir)
    for address in ("grpc_address", "rest_address"):
        with pytest.raises(ClickparityError, match="must be started"):
            getattr(server, address)


def test_keep_alive_and_pipelining(models_dir: Path) -> None:
    body = json.dumps(BODY).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with LocalServer(models_dir) as server:
        host, port = server.rest_address.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall((head + body) * 3)  # the second and third wait in the buffer
            answers = b""
            while answers.count(b"2.5") < 3:
                answers += connection.recv(65536)
    assert answers.count(b"HTTP/1.1 200 OK") == 3


def test_chunked_and_gzipped_bodies(models_dir: Path) -> None:
    body = json.dumps(BODY).encode()
    with LocalServer(models_dir) as server:
        zipped = {"Content-Encoding": "gzip"}
        assert rest(server.rest_address, "POST", PREDICT, gzip.compress(body), zipped)[0] == 200
        status, answer = rest(server.rest_address, "POST", PREDICT, b"no gzip", zipped)
        # The recorded answer of TF Serving, to which such a body is none at all.
        assert (status, error_of(answer)) == (400, "JSON Parse error: The document is empty")
        connection = http.client.HTTPConnection(server.rest_address)
        connection.request("POST", PREDICT, iter([body[:9], body[9:]]), encode_chunked=True)
        assert connection.getresponse().status == 200
        connection.close()


@pytest.mark.parametrize("length", ["-1", "x", "1e3"])
def test_a_content_length_that_is_no_number(models_dir: Path, length: str) -> None:
    with LocalServer(models_dir) as server:
        headers = {"Content-Length": length}
        status, answer = rest(server.rest_address, "POST", PREDICT, b"", headers)
        assert status == 400
        assert "Content-Length" in error_of(answer)
        assert rest(server.rest_address, "POST", PREDICT, BODY)[0] == 200


def test_the_request_size_limit(models_dir: Path) -> None:
    large = {"inputs": {"price": [0], "city": ["x" * 5000]}}
    with LocalServer(models_dir, max_request_bytes=4096) as server:
        status, answer = rest(server.rest_address, "POST", PREDICT, large)
        assert status == 413
        assert error_of(answer) == (
            f"Request of {len(json.dumps(large))} bytes is larger than the limit of 4096 bytes"
        )
        # The client learns it even if it is still sending when the server has made up its mind.
        assert rest(server.rest_address, "POST", PREDICT, b" " * 20_000_000)[0] == 413
        # A small body that unpacks to a large one is no way round.
        zipped = gzip.compress(b" " * 1_000_000)
        headers = {"Content-Encoding": "gzip"}
        assert rest(server.rest_address, "POST", PREDICT, zipped, headers)[0] == 413
        with grpc.insecure_channel(server.grpc_address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                predict(channel, predict_request(price=float32([0]), city=["x" * 5000]))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            request = predict_request(price=float32([2]), city=["ab"])
            assert predict(channel, request)["logit"].tolist() == [2.5]
        assert rest(server.rest_address, "POST", PREDICT, BODY)[0] == 200


def test_metrics_under_tf_servings_names(models_dir: Path) -> None:
    with LocalServer(models_dir) as server:
        for body in (BODY, BODY, {}):
            rest(server.rest_address, "POST", PREDICT, body)
        rest(server.rest_address, "POST", "/v1/models/invented:predict", BODY)
        with grpc.insecure_channel(server.grpc_address) as channel:
            predict(channel, predict_request(price=float32([2]), city=["ab"]))
        status, page = rest(server.rest_address, "GET", "/monitoring/prometheus/metrics")
    assert status == 200
    lines = page.decode().splitlines()
    count = ":tensorflow:serving:request_count"
    assert f'{count}{{model_name="{MODEL}",status="OK"}} 3.0' in lines
    assert f'{count}{{model_name="{MODEL}",status="INVALID_ARGUMENT"}} 1.0' in lines
    # What callers invent must not grow the page: any name but a model's is one.
    assert f'{count}{{model_name="unknown",status="NOT_FOUND"}} 1.0' in lines
    latency = ":tensorflow:serving:request_latency_count"
    labels = f'API="Predict",entrypoint="GRPC",model_name="{MODEL}"'
    assert f"{latency}{{{labels}}} 1.0" in lines
    labels = f'API="predict",entrypoint="REST",model_name="{MODEL}"'
    assert f"{latency}{{{labels}}} 2.0" in lines
    assert f'clickparity_model_version{{model_name="{MODEL}"}} 1.0' in lines


def test_health_over_grpc(models_dir: Path) -> None:
    with (
        LocalServer(models_dir) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=30) == b"\x08\x01"  # HealthCheckResponse{status: SERVING}
        with pytest.raises(grpc.RpcError) as caught:
            check(b"\x0a\x01x", timeout=30)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, "SessionRun", b"")  # in no TF Serving since 2.0
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("wire", ["grpc_port", "rest_port"])
def test_a_port_in_use_is_an_error_that_names_it(models_dir: Path, wire: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = LocalServer(models_dir, **{wire: port})
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} must be free"):
            server.start()


def test_it_says_that_it_is_for_development(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalServer(models_dir):
        pass
    assert "is for development" in caplog.text


def _serve_in_a_process(models_dir: Path, path: str = "") -> subprocess.Popen[str]:
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO, stream=sys.stderr)\n"
        "from serving.server.local_server import serve\n"
        f"serve({str(models_dir)!r}, grpc_port=0, rest_port=0)\n"
    )
    environment = {
        **os.environ,
        "PATH": path or "/nowhere",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment
    )


def _wait_for_line(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError("".join(lines))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_stops_the_process_and_loses_no_request(
    models_dir: Path, number: signal.Signals
) -> None:
    process = _serve_in_a_process(models_dir)
    try:
        match = _wait_for_line(process, r"gRPC on (\S+), REST on http://([^/]+)/")
        rest_address = match.group(2)
        lost: list[object] = []
        answered = threading.Semaphore(0)

        def keep_asking() -> None:
            while True:
                try:
                    status, _ = rest(rest_address, "POST", PREDICT, BODY)
                except http.client.RemoteDisconnected as error:  # taken, and not answered
                    lost.append(error)
                    return
                except ConnectionError:
                    return  # not accepted any more: nothing was taken, nothing was lost
                except Exception as error:
                    lost.append(error)
                    return
                if status != 200:
                    lost.append(status)
                answered.release()

        threads = [threading.Thread(target=keep_asking) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            assert answered.acquire(timeout=30)
        process.send_signal(number)  # while they keep asking: a stop must not wait for a pause
        assert process.wait(60) == 0
        for thread in threads:
            thread.join(60)
        assert lost == []
    finally:
        process.kill()
        process.wait()


# -- the real server -------------------------------------------------------------------------------


def _fake_binary(directory: Path, script: str) -> Path:
    """A stand-in that keeps its arguments and configuration, then does what `script` says."""
    directory.mkdir()
    binary = directory / BINARY
    binary.write_text(
        f"#!/bin/sh\nenv > {directory}/environment\n"
        f'for each in "$@"; do echo "$each" >> {directory}/arguments\n'
        'case "$each" in --*_config_file=*) cp "${each#*=}" '
        + f"{directory}/;; esac\ndone\n{script}\n"
    )
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    return binary


def test_serve_starts_the_real_server_when_it_is_on_path(
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    publish(exported(1.0), models_dir, 1, name="second")
    # With a model that has no version the real server never opens its ports.
    (models_dir / "to_come" / ".tmp-1").mkdir(parents=True)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")  # for our TensorFlow, not for the server
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    binary = _fake_binary(tmp_path / "bin", "touch $(dirname $0)/up; exec /bin/sleep 60")
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}/bin{os.pathsep}/usr/bin")
    stopped: list[int] = []

    def stop_when_up() -> None:
        while not (binary.parent / "up").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        stopped.append(1)

    threading.Thread(target=stop_when_up).start()
    before = signal.getsignal(signal.SIGTERM)
    local_server.serve(models_dir, grpc_port=1234, rest_port=5678)
    assert stopped
    assert signal.getsignal(signal.SIGTERM) is before
    arguments = (binary.parent / "arguments").read_text().splitlines()
    assert arguments[:2] == ["--port=1234", "--rest_api_port=5678"]
    assert arguments[-1] == "--enable_profiler=false"
    assert "--enable_grpc_healthcheck_service=true" in arguments
    assert not [each for each in arguments if each.startswith("--enable_batching")]
    environment = (binary.parent / "environment").read_text()
    assert "PATH=" in environment
    assert "TF_CPP_MIN_LOG_LEVEL" not in environment
    assert "GRPC_VERBOSITY" not in environment
    assert "not served, they have no version yet: to_come" in caplog.text
    config = text_format.Parse(
        (binary.parent / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    assert [
        (one.name, one.base_path, one.model_platform) for one in config.model_config_list.config
    ] == [
        (MODEL, str(models_dir / MODEL), "tensorflow"),
        ("second", str(models_dir / "second"), "tensorflow"),
    ]
    monitoring = (binary.parent / "monitoring.config").read_text()
    assert (
        monitoring == 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'
    )
    assert f"{binary} found: starting it instead of the embedded server" in caplog.text


def test_a_real_server_that_ends_by_itself_is_an_error(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = _fake_binary(tmp_path / "bin", "exit 7")
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}/bin{os.pathsep}/usr/bin")
    with pytest.raises(ClickparityError, match="exit code 7"):
        local_server.serve(models_dir)


def test_the_real_server_needs_a_model_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = _fake_binary(tmp_path / "bin", "exit 0")
    monkeypatch.setenv("PATH", str(binary.parent))
    (tmp_path / "models").mkdir()
    with pytest.raises(ConfigError, match="Publish a model first"):
        local_server.serve(tmp_path / "models")
    (tmp_path / "models" / "to_come").mkdir()
    for name in (None, "to_come", "nowhere"):
        with pytest.raises(ConfigError, match="Publish a model first"):
            local_server.serve(tmp_path / "models", name=name)
    assert not (tmp_path / "bin" / "arguments").exists()  # it was never started


@pytest.mark.parametrize(
    "options, message",
    [
        ({"host": "127.0.0.1"}, "listens on every address"),
        ({"grpc_port": 0}, "must be given its ports"),
        ({"rest_port": 0}, "must be given its ports"),
    ],
)
def test_what_the_real_server_cannot_do_is_refused(
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    message: str,
) -> None:
    binary = _fake_binary(tmp_path / "bin", "exit 7")
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}/bin{os.pathsep}/usr/bin")
    with pytest.raises(ConfigError, match=message):
        local_server.serve(models_dir, **options)
    # Every address is what it does.
    with pytest.raises(ClickparityError, match="exit code 7"):
        local_server.serve(models_dir, host="0.0.0.0")
