"""The client of a server that batches: fewer rows where it takes fewer, once more for another's fault."""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from jobs.cli import main
from pipeline.errors import ClickparityError, ConfigError
from serving.client.batched_server import is_about_another_request, largest_batch_of
from serving.client.client import PredictClient
from serving.client.transports import CallError
from serving.server.local_server import LocalServer
from tests.serving.server_fixtures import MODEL, exported, publish

Answer = tuple[int, object]
NUMBER = {"inputs": {"x": {"dtype": "DT_FLOAT"}}, "outputs": {"y": {"dtype": "DT_FLOAT"}}}
INVALID, PRECONDITION = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
SHAPES = (
    "Tensors with name 'serving_default_x:0' from different tasks have different shapes and padding is "
    "turned off. Set pad_variable_length_inputs to true, or ensure that all tensors with the same name "
    "have equal dimensions starting with the first dim."
)


@contextlib.contextmanager
def server(answer: Callable[[list[float]], Answer]) -> Iterator[tuple[PredictClient, list[int]]]:
    """A client of ten rows a request, and the rows of each request that came; `answer` to each."""
    sizes: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            signatures = {"signature_def": {"signature_def": {"serving_default": NUMBER}}}
            self.send(200, {"metadata": signatures})

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]["x"]
            sizes.append(len(sent))
            self.send(*answer(sent))

        def send(self, status: int, document: object) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as fake:
        threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02}).start()
        address = f"127.0.0.1:{fake.server_address[1]}"
        with PredictClient(address, MODEL, protocol="rest", max_batch_size=10) as client:
            yield client, sizes
        fake.shutdown()


def doubled(sent: list[float]) -> Answer:
    return 200, {"outputs": [2 * value for value in sent]}


def test_a_server_that_takes_fewer_rows_gets_fewer(caplog: pytest.LogCaptureFixture) -> None:
    def answer(sent: list[float]) -> Answer:
        if len(sent) > 4:
            text = f"Task size {len(sent)} is larger than maximum input batch size 4"
            return 400, {"error": text}
        return doubled(sent)

    caplog.set_level(logging.INFO)
    with server(answer) as (client, sizes):
        for _ in range(2):
            assert client.predict({"x": np.arange(10.0)})["y"].tolist() == list(range(0, 20, 2))
    assert sizes == [10, 4, 4, 2, 4, 4, 2]
    assert caplog.text.count("takes 4 rows a request at most") == 1


def test_a_limit_that_makes_no_sense_is_an_error() -> None:
    def answer(sent: list[float]) -> Answer:
        return 400, {"error": "Task size 3 is larger than maximum input batch size 3"}

    with server(answer) as (client, sizes), pytest.raises(ConfigError, match="Task size 3"):
        client.predict({"x": np.arange(3.0)})
    assert sizes == [3]


def test_what_another_caller_sent_is_not_this_callers_fault() -> None:
    refusals = [SHAPES]

    def answer(sent: list[float]) -> Answer:
        return (400, {"error": refusals.pop()}) if refusals else doubled(sent)

    with server(answer) as (client, sizes):
        assert client.predict({"x": [1.0, 2.0]})["y"].tolist() == [2.0, 4.0]
    assert sizes == [2, 2]


@pytest.mark.parametrize(
    "text, requests",
    [(SHAPES, 2), ("Incompatible shapes: [3] vs. [2]", 1), ("assertion failed", 1)],
)
def test_once_more_and_no_more(text: str, requests: int) -> None:
    with (
        server(lambda sent: (400, {"error": text})) as (client, sizes),
        pytest.raises(ClickparityError, match=text[:20].replace("[", ".")),
    ):
        client.predict({"x": [1.0]})
    assert sizes == [1] * requests


def example_error(value: str) -> str:
    return f"Could not parse example input, value: '{value}'\n\t [[{{{{node ParseExample}}}}]]"


@pytest.mark.parametrize(
    "code, text, another",
    [
        (INVALID, example_error("somebody's"), True),
        (INVALID, example_error("ours"), False),
        (INVALID, example_error("it's ours"), False),
        (INVALID, example_error("\ufffdbytes"), False),  # as gRPC shows bytes that are no text
        (INVALID, example_error("\udcffbytes "), False),  # as REST does
        (INVALID, example_error("x" * 2000)[:1024] + "...TRUNCATED", False),
        (INVALID, example_error("y" * 2000)[:1024] + "...TRUNCATED", True),
        # Row 0 of the joined batch may be ours or not.
        (
            INVALID,
            "Name: <unknown>, Key: price, Index: 0.  Data types don't match. Data type",
            True,
        ),
        (PRECONDITION, SHAPES, True),
        (INVALID, SHAPES, True),  # over REST both are 400
        (INVALID, "Expects arg[0] to be float but int32 is provided", False),
        (grpc.StatusCode.NOT_FOUND, SHAPES, False),
        (grpc.StatusCode.INTERNAL, example_error("somebody's"), False),
    ],
)
def test_whose_request_a_text_is_about(code: grpc.StatusCode, text: str, another: bool) -> None:
    texts = [b"ours", b"it's ours", b"\xffbytes ", b"x" * 2000]
    inputs = {"examples": np.array(texts, dtype=object), "x": np.zeros(4, np.float32)}
    assert is_about_another_request(CallError(code, text), inputs) is another


def test_the_largest_batch_is_read_from_the_refusal() -> None:
    text = "Task size 1024 is larger than maximum input batch size 512"
    assert largest_batch_of(CallError(INVALID, text)) == 512
    assert largest_batch_of(CallError(INVALID, "Incompatible shapes")) is None


@pytest.mark.parametrize("size, requests", [(None, 1), (2, 3)])
def test_predict_takes_the_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int | None, requests: int
) -> None:
    publish(exported(1.0), tmp_path / "models", 1)
    rows = tmp_path / "rows.csv"
    rows.write_text("price,city\n" + "2,ab\n" * 5)
    options = [] if size is None else ["--batch-size", str(size)]
    with LocalServer(tmp_path / "models") as running:
        asked = ["--address", running.grpc_address, "--name", MODEL, "--input", str(rows), *options]
        assert main(["predict", *asked, "--json"]) == 0
        page = running.metrics.page().decode()
    assert json.loads(capsys.readouterr().out)["logit"] == [2.5] * 5
    labels = f'{{model_name="{MODEL}",status="OK"}}'
    assert f":tensorflow:serving:request_count{labels} {requests}.0" in page


def test_no_rows_a_request_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--address", "localhost:1", "--name", MODEL, "--input", "x.csv", "--batch-size", "0"]
    assert main(["predict", *asked]) == 2
    assert "--batch-size must be at least 1" in capsys.readouterr().err
