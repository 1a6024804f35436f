"""Sends seeded requests to a server in another process, four callers at once, and notes what is wrong.

Wrong is: a status that TF Serving does not give, a logit that is not the model's, no answer within the
deadline, a server that ended, and memory that grows with the number of requests.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import http.client
import json
import socket
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from jobs.server_process import ServerProcess
from tests.serving.server.bad_http import HTTP_KINDS, SOCKET_KINDS, http_case, socket_case
from tests.serving.server.bad_requests import GRPC_KINDS, Case, Truth, grpc_case

__all__ = ["Storm", "run_storm"]

DEADLINE_S = 30.0
NUM_CALLERS = 4
LOGIT_BAR = 1e-5
GOOD_EVERY = 100  # a good request at least this often, whatever is drawn
_WIRES = {"grpc": 0.45, "rest": 0.45, "socket": 0.10}


@dataclasses.dataclass
class Storm:
    """What came of it.

    Attributes:
        seconds: how long it took.
        counts: requests by wire and kind.
        statuses: requests by wire and status.
        findings: a line for each answer that was not right.
        resident_mb: of the server: before, and after each quarter.
        slowest_s: the longest wait for an answer.
    """

    seconds: float = 0.0
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    statuses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    findings: list[str] = dataclasses.field(default_factory=list)
    resident_mb: list[float] = dataclasses.field(default_factory=list)
    slowest_s: float = 0.0

    def __str__(self) -> str:
        parts = [
            f"{self.counts.total():,} requests in {self.seconds:.0f} s, the slowest {self.slowest_s:.2f} s",
            "server MB before and by quarter: " + " ".join(f"{m:.0f}" for m in self.resident_mb),
            "statuses: " + ", ".join(f"{k} {n:,}" for k, n in sorted(self.statuses.items())),
            "kinds: " + ", ".join(f"{k} {n:,}" for k, n in sorted(self.counts.items())),
            f"{len(self.findings)} findings",
            *self.findings[:20],
        ]
        return "\n".join(parts)


def run_storm(
    server: ServerProcess,
    truth: Truth,
    *,
    requests: int,
    seed: int,
) -> Storm:
    """Sends `requests` requests drawn from `seed`.

    Args:
        server: what is asked.
        truth: the model behind them.
        requests: how many, over all callers.
        seed: the same seed sends the same requests (their order between callers is not fixed).
    """
    storm, lock = Storm(resident_mb=[server.resident_mb()]), threading.Lock()
    addresses = server.grpc_address, server.rest_address
    started_s = time.monotonic()
    for quarter in range(4):
        share = requests * (quarter + 1) // 4 - requests * quarter // 4
        threads = [
            threading.Thread(
                target=_call,
                args=(addresses, truth, storm, lock, [seed, quarter, caller]),
                kwargs={
                    "requests": share * (caller + 1) // NUM_CALLERS - share * caller // NUM_CALLERS
                },
            )
            for caller in range(NUM_CALLERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if server.process.poll() is not None:
            storm.findings.append(f"the server ended with {server.process.returncode}")
            break
        storm.resident_mb.append(server.resident_mb())
    storm.seconds = time.monotonic() - started_s
    return storm


def _call(
    addresses: tuple[str, str],
    truth: Truth,
    storm: Storm,
    lock: threading.Lock,
    seed: list[int],
    *,
    requests: int,
) -> None:
    rng = np.random.default_rng(seed)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    rest = http.client.HTTPConnection(addresses[1], timeout=DEADLINE_S)
    with grpc.insecure_channel(addresses[0], options=options) as channel:
        for index in range(requests):
            case = _draw(truth, rng, good=index % GOOD_EVERY == 0 or index == requests - 1)
            sent_s = time.monotonic()
            try:
                if case.wire == "grpc":
                    status, found, words = _grpc(channel, case)
                elif case.wire == "rest":
                    status, found, words = _rest(rest, case)
                else:
                    status, found, words = _socket(addresses[1], case)
            except Exception as error:  # whatever the caller's side trips over is a finding
                status, found, words = type(error).__name__, None, str(error)
                rest.close()
            wrong = status not in case.allowed
            if case.logits is not None and not wrong:
                same = found is not None and found.shape == case.logits.shape
                wrong = not (same and float(np.abs(found - case.logits).max()) <= LOGIT_BAR)
            with lock:
                storm.counts[f"{case.wire} {case.kind}"] += 1
                storm.statuses[f"{case.wire} {status}"] += 1
                storm.slowest_s = max(storm.slowest_s, time.monotonic() - sent_s)
                if wrong:
                    storm.findings.append(
                        f"{case.wire} {case.kind}, seed {seed}, request {index}: {status}, expected "
                        f"{sorted(case.allowed)}: {words[:300]!r} for {case.target} {case.body[:200]!r}"
                    )
    rest.close()


def _draw(truth: Truth, rng: np.random.Generator, *, good: bool) -> Case:
    wire = str(rng.choice(list(_WIRES), p=list(_WIRES.values())))
    if good:
        if wire == "grpc":
            return grpc_case(truth, "good", rng)
        return http_case(truth, "good columns", rng)
    make, kinds = {
        "grpc": (grpc_case, GRPC_KINDS),
        "rest": (http_case, HTTP_KINDS),
        "socket": (socket_case, SOCKET_KINDS),
    }[wire]
    weights = np.array(list(kinds.values()), np.float64)
    return make(truth, str(rng.choice(list(kinds), p=weights / weights.sum())), rng)


def _grpc(channel: grpc.Channel, case: Case) -> tuple[str, np.ndarray | None, str]:
    """(status, logits, message)."""
    send = channel.unary_unary(f"/tensorflow.serving.PredictionService/{case.target}")
    try:
        answer = send(case.body, timeout=DEADLINE_S)
    except grpc.RpcError as error:
        return error.code().name, None, error.details() or ""
    if case.logits is None:
        return "OK", None, ""
    outputs = predict_pb2.PredictResponse.FromString(answer).outputs
    return "OK", tf.make_ndarray(outputs["logit"]), ""


def _rest(connection: http.client.HTTPConnection, case: Case) -> tuple[str, np.ndarray | None, str]:
    method, path = case.target.split(" ")
    connection.request(method, path, case.body)
    response = connection.getresponse()
    text = response.read().decode("utf-8", "surrogateescape")
    status = str(response.status)
    # Of a version beyond 64 bits TF Serving says nothing but 400, see test_recorded_answers.
    if path.startswith("/v1/") and (text or status != "400"):
        document = json.loads(text)
        if status != "200":
            assert isinstance(document["error"], str)
    if case.logits is None:
        return status, None, text
    rows = document.get("predictions")
    found = [row["logit"] for row in rows] if rows else document["outputs"]["logit"]
    return status, np.array(found, np.float32), text


def _socket(address: str, case: Case) -> tuple[str, np.ndarray | None, str]:
    """Sends, ends this side, reads to the end: the server must answer or close, not hang."""
    host, port = address.split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
        try:
            connection.sendall(case.body)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except OSError as error:  # cut off half way is an answer, before or after the last byte
            if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                raise
    words = answer.split(b"\r\n")[0].split(b" ")
    status = words[1].decode() if words[0].startswith(b"HTTP/") and len(words) > 1 else "closed"
    return status, None, answer[:300].decode("utf-8", "replace")
