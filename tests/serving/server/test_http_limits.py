"""Slow, greedy and ambiguous HTTP clients of the development server: cut off, while others are served."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.server.http_server import HttpServer
from serving.server.local_server import DEFAULT_MAX_REQUEST_BYTES
from serving.server.metrics import ServerMetrics
from serving.server.prediction_api import PredictionApi
from serving.server.repository_watch import WatchedModels
from serving.server.rest_api import RestApi
from tests.serving.server_fixtures import MODEL, PATH, error_of, exported, publish, rest

PREDICT = PATH + ":predict"
BODY = json.dumps({"inputs": {"price": [2], "city": ["ab"]}}).encode()
ZIPPED = {"Content-Encoding": "gzip"}
HEAD = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\n".encode()
DEADLINE_S = 0.5


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a REST server with short deadlines."""
    models_dir, metrics = tmp_path_factory.mktemp("models"), ServerMetrics()
    publish(exported(1.0), models_dir, 1)
    models = WatchedModels(str(models_dir), metrics, name=MODEL)
    models.start()
    server = HttpServer(
        RestApi(PredictionApi(models), metrics),
        "127.0.0.1",
        0,
        max_request_bytes=DEFAULT_MAX_REQUEST_BYTES,
        request_timeout_s=DEADLINE_S,
        idle_timeout_s=DEADLINE_S,
    )
    server.start()
    yield f"127.0.0.1:{server.port}"
    server.stop(1.0)
    models.stop()


def connect(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    while part := connection.recv(65536):
        answer += part
    return answer


def exchange(address: str, data: bytes) -> bytes:
    """What comes back until the server closes."""
    with connect(address) as connection:
        connection.sendall(data)
        return read_all(connection)


def assert_serves(address: str) -> None:
    assert rest(address, "POST", PREDICT, BODY)[0] == 200


@pytest.mark.parametrize(
    "start, status",
    [
        (b"", None),  # not a byte of a request: an idle connection
        (b"GET /v1/mod", None),  # what is no request yet gets no answer
        (HEAD + b"X-Slow: ", None),
        (HEAD + b"Content-Length: 1000\r\n\r\n", b"408"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n", b"408"),
    ],
)
def test_a_byte_now_and_then_does_not_hold_a_connection(
    address: str, start: bytes, status: bytes | None
) -> None:
    with connect(address) as connection:
        connection.sendall(start)
        started = time.monotonic()
        connection.settimeout(DEADLINE_S / 5)
        answer, closed = b"", False
        while not closed and time.monotonic() - started < 20:
            try:
                part = connection.recv(65536)
                answer, closed = answer + part, not part
            except TimeoutError:
                connection.sendall(b"1" if start else b"")
            except ConnectionError:
                closed = True
        assert closed
    if status is None:
        assert answer == b""
    else:
        assert answer.split()[1] == status
        assert b"must arrive within 0.5 s" in answer
    assert_serves(address)


def test_a_client_that_does_not_take_its_answer_is_cut_off(address: str) -> None:
    echo = {"signature_name": "echo", "inputs": {"ids": [[1, 2]], "raw": ["x" * 30_000_000]}}
    body = json.dumps(echo).encode()
    with connect(address) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        head = connection.recv(1000).partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 200 OK")
        time.sleep(4 * DEADLINE_S)  # what the kernel has taken by then still comes
        length = 0
        with contextlib.suppress(ConnectionError):
            length = len(read_all(connection))
    (promised,) = re.findall(rb"Content-Length: (\d+)", head)
    assert length < int(promised) - 10_000_000
    assert_serves(address)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: %d\r\nContent-Length: %d\r\n" % (len(BODY), len(BODY)),
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_a_body_of_two_lengths_is_refused(address: str, headers: bytes) -> None:
    answer = exchange(address, HEAD + headers + b"\r\n" + BODY)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert "length of its body once" in error_of(body)
    # Whatever follows is not taken for a second request.
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "data, status",
    [
        (b'FO"O /v1/models/x HTTP/1.1\r\n\r\n', b"501"),
        (b"TRACE /v1/models/x HTTP/1.1\r\n\r\n", b"501"),
        (b'GET /"<b> x HTTP/1.1\r\n\r\n', b"400"),
        (b'GET /v1/models/"x" HTTP/1.1\r\nConnection: close\r\n\r\n', b"400"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
    ],
)
def test_what_is_no_http_gets_a_page_and_none_of_its_text(
    address: str, data: bytes, status: bytes
) -> None:
    head, _, body = exchange(address, data).partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert b"Content-Type: text/html" in head
    title = re.fullmatch(
        rb"<HTML><HEAD>\n<TITLE>%s ([A-Za-z -]+)</TITLE>\n</HEAD><BODY>\n<H1>\1</H1>\n"
        rb"</BODY></HTML>\n" % status,
        body,
    )
    assert title, body


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\x00", "</script>", "\u2028"])
def test_errors_that_quote_the_request_are_json(address: str, text: str) -> None:
    for body in (
        {"signature_name": text, "inputs": 1},
        {"instances": [{text: 1}]},
        [text],
    ):
        status, answer = rest(address, "POST", PREDICT, body)
        assert status == 400
        assert json.loads(answer).keys() == {"error"}


def test_a_client_that_waits_before_it_sends_its_body(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"


def peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


SPACES = b" " * (DEFAULT_MAX_REQUEST_BYTES - 1000)
BOMBS = {
    "spaces": (SPACES, 400),
    "beyond the limit": (b" " * (300 << 20), 413),
    "one text": (b'{"inputs": "' + SPACES + b'"}', 400),
    "bytes that are no UTF-8": (b'{"inputs": "\xff' + SPACES + b'"}', 400),
    "nesting": (b'{"inputs": ' + b"[" * 3_500_000 + b"]" * 3_500_000 + b"}", 400),
    "empty lists": (b'{"inputs": [' + b"[]," * 20_000_000 + b"0]}", 400),
    "numbers": (b'{"inputs": [' + b"0," * 30_000_000 + b"0]}", 400),
    "numbers, slowly": (b'{"inputs": [1e-100,' + b"0," * 30_000_000 + b"0]}", 400),
    "most lists": (b'{"inputs": [1e-100' + b",[]" * 490_000 + b"]}", 400),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_small_body_buys_little_memory_and_time(address: str, case: str) -> None:
    """1.4 GB and 15 s without the limits; up to 320 MB and 3 s of one core with them."""
    bomb, expected = BOMBS[case]
    zipped = gzip.compress(bomb, compresslevel=1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before_mb, before_s = peak_mb(), time.process_time()
    assert rest(address, "POST", PREDICT, zipped, ZIPPED)[0] == expected
    assert time.process_time() - before_s < 10
    assert peak_mb() - before_mb < 500
    assert_serves(address)
