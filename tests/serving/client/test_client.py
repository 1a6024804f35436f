"""The client: conversion, batches, deadlines, retries and errors, over both wires."""

from __future__ import annotations

import http.server
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ClickparityError, ConfigError, DataError
from serving.client import client as client_module
from serving.client.client import PredictClient, columns_from_table
from serving.server.local_server import LocalServer
from serving.server.servable import Servable
from tests.serving.server_fixtures import MODEL, expected_logits, exported, publish

Protocol = Literal["grpc", "rest"]
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "rest")
both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)

FLOAT, TEXT = np.dtype(np.float32), np.dtype(object)
MORE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    publish(exported(1.0), directory, 1)
    return directory


@pytest.fixture(scope="module")
def server(models_dir: Path) -> Iterator[LocalServer]:
    with LocalServer(models_dir) as running:
        yield running


def connect(server: LocalServer, protocol: Protocol, **options: object) -> PredictClient:
    address = server.grpc_address if protocol == "grpc" else server.rest_address
    name = options.pop("name", MODEL)
    return PredictClient(address, name, protocol=protocol, **options)  # type: ignore[arg-type]


def num_requests(server: LocalServer, status: str = "OK") -> float:
    labels = {"model_name": MODEL, "status": status}
    found = server.metrics.registry.get_sample_value(":tensorflow:serving:request_count", labels)
    return found or 0.0


# -- answers ---------------------------------------------------------------------------------------


@both_protocols
def test_columns_in_arrays_out(server: LocalServer, protocol: Protocol) -> None:
    with connect(server, protocol) as client:
        assert client.input_dtypes == {"city": TEXT, "price": FLOAT}
        outputs = client.predict(
            {"price": [1, None, 2.5, math.nan], "city": ["é", b"\xff\x00", None, ""]}
        )
    assert outputs.keys() == {"probability", "logit"}
    # "é" is two bytes; a missing price counts as 0, a missing city as "".
    assert outputs["logit"].tolist() == [2.0, 1.5, 2.25, 1.0]
    assert outputs["logit"].dtype == np.float32
    assert outputs["probability"][0] == pytest.approx(0.880797, abs=1e-6)


@given(
    price=st.lists(st.floats(width=32, min_value=-(2.0**20), max_value=2.0**20) | st.none()),
    data=st.data(),
)
@MORE
def test_both_wires_equal_the_formula(
    server: LocalServer, price: list[float | None], data: st.DataObject
) -> None:
    num_rows = len(price)
    city = data.draw(st.lists(st.binary(max_size=12), min_size=num_rows, max_size=num_rows))
    known = [math.nan if value is None else value for value in price]
    for protocol in PROTOCOLS:
        with connect(server, protocol, max_batch_size=7) as client:
            logits = client.predict({"price": price, "city": city})["logit"]
        np.testing.assert_allclose(logits, expected_logits(1.0, known, city), rtol=1e-6, atol=1e-5)
        assert logits.shape == (len(price),)


@both_protocols
def test_other_signatures_nested_columns_and_text_outputs(
    server: LocalServer, protocol: Protocol
) -> None:
    with connect(server, protocol, signature_name="echo", version=1) as client:
        ids = np.array([[1, -(2**63)], [3, 2**63 - 1], [5, 6]])
        outputs = client.predict({"ids": ids, "raw": ["a", "é", "\n"]})
        np.testing.assert_array_equal(outputs["ids"], ids)
        assert (
            outputs["text"].tolist() == outputs["raw_bytes"].tolist() == [b"a", "é".encode(), b"\n"]
        )
    with connect(server, protocol, signature_name="one_to_one") as client:
        outputs = client.predict({"price": np.array([0.0, 4.0])})  # float64 is converted
        assert {name: array.tolist() for name, array in outputs.items()} == {"logit": [1.0, 3.0]}


@both_protocols
@pytest.mark.parametrize("num_rows, requests", [(0, 0), (1, 1), (10, 1), (11, 2), (25, 3)])
def test_long_columns_are_sent_in_batches(
    server: LocalServer, protocol: Protocol, num_rows: int, requests: int
) -> None:
    with connect(server, protocol, max_batch_size=10) as client:
        assert len(client.input_dtypes) == 2  # over REST this counts as a request
        before = num_requests(server)
        price = np.arange(num_rows, dtype=np.float32)
        outputs = client.predict({"price": price, "city": [""] * num_rows})
        assert num_requests(server) - before == requests
    np.testing.assert_array_equal(outputs["logit"], 1 + 0.5 * price)
    assert outputs["probability"].dtype == np.float32


@both_protocols
def test_one_client_serves_many_threads(server: LocalServer, protocol: Protocol) -> None:
    wrong: list[object] = []

    def ask(number: int) -> None:
        for _ in range(10):
            logits = client.predict({"price": [number], "city": [""]})["logit"]
            if logits.tolist() != [1 + 0.5 * number]:
                wrong.append((number, logits))

    with connect(server, protocol) as client:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# -- the caller's mistakes -------------------------------------------------------------------------


@both_protocols
@pytest.mark.parametrize(
    "columns, message",
    [
        ({"price": [1.0]}, "missing: city; unknown: none"),
        ({"price": [1.0], "city": ["a"], "label": [0]}, "missing: none; unknown: label"),
        ({}, "missing: city, price; unknown: none"),
        ({"price": [1.0, 2.0], "city": ["a"]}, "same number of rows; got {'city': 1, 'price': 2}"),
        ({"price": ["x"], "city": ["a"]}, "column 'price' must hold float32"),
        ({"price": [1.0], "city": [3]}, "column 'city' must hold text or bytes"),
        ({"price": 1.0, "city": ["a"]}, "column 'price' must be a sequence"),
        ({"price": [[1.0], [1.0, 2.0]], "city": ["a", "b"]}, "column 'price' must hold float32"),
        ({"price": [[1.0, 2.0, 3.0]] * 2, "city": ["a"] * 2}, "Incompatible shapes: [2,3] vs. [2]"),
    ],
)
def test_wrong_columns(
    server: LocalServer, protocol: Protocol, columns: dict[str, Sequence[object]], message: str
) -> None:
    with connect(server, protocol) as client, pytest.raises(ConfigError) as caught:
        client.predict(columns)
    assert message in str(caught.value)


@both_protocols
def test_fractions_are_no_ids(server: LocalServer, protocol: Protocol) -> None:
    with (
        connect(server, protocol, signature_name="echo") as client,
        pytest.raises(ConfigError, match="column 'ids' must hold int64"),
    ):
        client.predict({"ids": [[1.5, 2.0]], "raw": ["a"]})


@both_protocols
@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "nope"}, "must serve model 'nope', any version"),
        ({"version": 9}, f"must serve model '{MODEL}', version 9"),
        ({"signature_name": "nope"}, "It has: classify, echo,"),
    ],
)
def test_unknown_model_version_or_signature(
    server: LocalServer, protocol: Protocol, options: dict[str, object], message: str
) -> None:
    with connect(server, protocol, **options) as client, pytest.raises(ConfigError) as caught:
        client.predict({"price": [1.0], "city": ["a"]})
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: PredictClient("localhost", MODEL),
        lambda: PredictClient("localhost:http", MODEL),
        lambda: PredictClient("localhost:1", MODEL, protocol="http"),  # type: ignore[arg-type]
        lambda: PredictClient("localhost:1", MODEL, timeout_s=0),
        lambda: PredictClient("localhost:1", MODEL, max_batch_size=0),
    ],
)
def test_arguments_are_refused_early(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()


@both_protocols
def test_only_the_latest_signature_counts_after_a_refusal(
    tmp_path: Path, protocol: Protocol
) -> None:
    """The client asks again for the inputs once the server has refused what it knew."""
    publish(exported(1.0), tmp_path, 1)
    with LocalServer(tmp_path, poll_interval_s=0.02) as server, connect(server, protocol) as client:
        client.predict({"price": [1.0], "city": ["a"]})
        stale = client._signature()
        del stale.inputs["city"]  # as if the model had had one input when it was asked
        with pytest.raises(ConfigError):
            client.predict({"price": [1.0]})
        assert client.predict({"price": [1.0], "city": ["a"]})["logit"].tolist() == [1.75]


# -- failures of the server ------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Records the back-off instead of waiting; jitter at its ceiling."""
    slept: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", slept.append)
    monkeypatch.setattr(client_module.random, "uniform", lambda low, high: high)
    return slept


@both_protocols
def test_an_unreachable_server(protocol: Protocol, pauses: list[float]) -> None:
    address = f"127.0.0.1:{free_port()}"
    with (
        PredictClient(address, MODEL, protocol=protocol, max_attempts=4, timeout_s=60) as client,
        pytest.raises(ClickparityError) as caught,
    ):
        client.predict({"price": [1.0], "city": ["a"]})
    assert pauses == [0.1, 0.2, 0.4]  # doubling, and none after the last attempt
    assert caught.value.exit_code == 1
    assert address in str(caught.value)
    assert "after 4 attempts" in str(caught.value)


def test_an_unknown_host(pauses: list[float]) -> None:
    with (
        PredictClient("host.invalid:1", MODEL, protocol="rest", max_attempts=2) as client,
        pytest.raises(ClickparityError, match=r"host\.invalid:1 must be reachable"),
    ):
        client.predict({"price": [1.0], "city": ["a"]})


@both_protocols
def test_a_server_that_comes_up_meanwhile_is_found(
    models_dir: Path, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    ports = {"grpc_port": port} if protocol == "grpc" else {"rest_port": port}
    server = LocalServer(models_dir, **ports)  # type: ignore[arg-type]
    started = threading.Event()
    sleep = client_module.time.sleep

    def start_instead_of_waiting(seconds: float) -> None:
        if not started.is_set():
            started.set()
            server.start()
        sleep(0.3)  # a gRPC channel waits 0.1 s or more before it dials again

    monkeypatch.setattr(client_module.time, "sleep", start_instead_of_waiting)
    address = f"127.0.0.1:{port}"
    with PredictClient(address, MODEL, protocol=protocol, timeout_s=60, max_attempts=20) as client:
        assert client.predict({"price": [2.0], "city": [""]})["logit"].tolist() == [2.0]
    assert started.is_set()
    monkeypatch.undo()
    server.stop()


@both_protocols
def test_a_restarted_server_is_found_by_the_same_client(
    models_dir: Path, protocol: Protocol
) -> None:
    """The kept connection is dead by then; over REST the client must not trip over it."""
    with LocalServer(models_dir) as first:
        client = connect(first, protocol, timeout_s=60, max_attempts=20)
        assert client.predict({"price": [2.0], "city": [""]})["logit"].tolist() == [2.0]
        port = int((first.grpc_address if protocol == "grpc" else first.rest_address)[10:])
    ports = {"grpc_port": port} if protocol == "grpc" else {"rest_port": port}
    with LocalServer(models_dir, **ports), client:  # type: ignore[arg-type]
        assert client.predict({"price": [4.0], "city": [""]})["logit"].tolist() == [3.0]


@both_protocols
def test_refusals_are_sent_once(
    server: LocalServer, protocol: Protocol, pauses: list[float]
) -> None:
    with connect(server, protocol, signature_name="fails_on_negative") as client:
        before = num_requests(server, "INVALID_ARGUMENT")
        with pytest.raises(ConfigError, match="assertion failed"):
            client.predict({"price": [-1.0]})
        assert num_requests(server, "INVALID_ARGUMENT") - before == 1
    assert pauses == []


@both_protocols
def test_the_deadline(
    server: LocalServer, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    with connect(server, protocol, timeout_s=0.3) as client:
        assert client.input_dtypes
        run = Servable.run

        def slow_run(*args: object) -> object:
            assert go_on.wait(60)
            return run(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(Servable, "run", slow_run)
        with pytest.raises(ClickparityError, match=r"must answer within 0\.3 s") as caught:
            client.predict({"price": [1.0], "city": ["a"]})
        assert caught.value.exit_code == 1
        go_on.set()


def test_rest_503_is_tried_again_and_other_failures_are_not(pauses: list[float]) -> None:
    statuses = [503, 503, 200, 500]
    served: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = statuses[len(served)]
            served.append(status)
            signature = {"inputs": {"price": {"dtype": "DT_FLOAT"}}, "outputs": {}}
            metadata = {"signature_def": {"signature_def": {"serving_default": signature}}}
            body = {"metadata": metadata} if status == 200 else {"error": "come back later"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as fake:
        threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02}).start()
        address = f"http://127.0.0.1:{fake.server_address[1]}"
        with PredictClient(address, MODEL, protocol="rest") as client:
            assert client.input_dtypes == {"price": FLOAT}
            assert pauses == [0.1, 0.2]
        with (
            PredictClient(address, MODEL, protocol="rest") as client,
            pytest.raises(ClickparityError, match="INTERNAL: come back later"),
        ):
            client.predict({"price": [1.0]})
        fake.shutdown()
    assert served == statuses
    assert len(pauses) == 2


@pytest.mark.parametrize("body", ["hello", "[1]", "{}", '{"metadata": {"signature_def": 3}}'])
def test_a_port_on_which_something_else_answers(body: str) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02}).start()
        address = f"127.0.0.1:{other.server_address[1]}"
        with (
            PredictClient(address, MODEL, protocol="rest") as client,
            pytest.raises(ClickparityError, match="is not that of a model server") as caught,
        ):
            client.predict({"price": [1.0]})
        other.shutdown()
    assert address in str(caught.value)


def test_rest_requests_share_one_kept_connection() -> None:
    connections: set[object] = set()
    signature = {
        "inputs": {"price": {"dtype": "DT_FLOAT"}},
        "outputs": {"y": {"dtype": "DT_FLOAT"}},
    }
    metadata = {"signature_def": {"signature_def": {"serving_default": signature}}}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer({"metadata": metadata})

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer({"outputs": sent["inputs"]["price"]})

        def answer(self, document: object) -> None:
            connections.add(self.client_address)
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as fake:
        threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02}).start()
        with PredictClient(f"127.0.0.1:{fake.server_address[1]}", MODEL, protocol="rest") as client:
            for value in (
                1.0,
                math.inf,
                math.nan,
            ):  # the last two are sent bare, as TF Serving reads
                (found,) = client.predict({"price": [value]})["y"]
                assert found == value or math.isnan(found) == math.isnan(value)
        fake.shutdown()
    assert len(connections) == 1


# -- tables ----------------------------------------------------------------------------------------


def test_a_table_becomes_columns() -> None:
    table = pa.table(
        {
            "label": [0, 1, 0],
            "price": pa.array([1, None, 3], pa.int64()),
            "score": pa.array([0.5, None, float("nan")], pa.float64()),
            "city": pa.array(["é", None, ""], pa.string()),
            "site": pa.array(["a", None, "a"]).dictionary_encode(),
            "raw": pa.array([b"\xff", None, b""], pa.binary()),
            "user": pa.array([12, None, 2**62], pa.int64()),
            "typed": pa.array(["1.5", "", None], pa.string()),
            "hour": pa.array([1, 2, 3], pa.int8()),
            "empty": pa.nulls(3),
        }
    )
    dtypes = {
        **dict.fromkeys(["price", "score", "typed"], FLOAT),
        **dict.fromkeys(["city", "site", "raw", "user", "empty"], TEXT),
        "hour": np.dtype(np.int64),
    }
    columns = columns_from_table(table, dtypes)
    assert columns.keys() == dtypes.keys()  # the label is no input
    assert {name: columns[name].dtype for name in columns} == dtypes
    np.testing.assert_array_equal(columns["price"], [1, np.nan, 3])
    np.testing.assert_array_equal(columns["score"], [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(columns["typed"], [1.5, np.nan, np.nan])
    assert columns["city"].tolist() == ["é".encode(), b"", b""]
    assert columns["site"].tolist() == [b"a", b"", b"a"]
    assert columns["raw"].tolist() == [b"\xff", b"", b""]
    assert columns["user"].tolist() == [b"12", b"", str(2**62).encode()]
    assert columns["empty"].tolist() == [b"", b"", b""]
    assert columns["hour"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("num_rows", [0, 1])
def test_tables_of_no_row_and_of_many_chunks(num_rows: int) -> None:
    chunk = pa.table({"price": pa.array([1.0] * num_rows), "city": pa.array(["a"] * num_rows)})
    columns = columns_from_table(pa.concat_tables([chunk] * 3), {"price": FLOAT, "city": TEXT})
    assert columns["price"].tolist() == [1.0] * 3 * num_rows
    assert columns["city"].tolist() == [b"a"] * 3 * num_rows


def test_a_table_without_an_input() -> None:
    with pytest.raises(ConfigError, match="missing: city, price"):
        columns_from_table(pa.table({"label": [1]}), {"price": FLOAT, "city": TEXT})


@pytest.mark.parametrize(
    "values, dtype, message",
    [
        (pa.array(["1", "x"]), FLOAT, "readable as float32"),
        (pa.array([1.5]), TEXT, "readable as text or bytes"),
        (pa.array([1, None]), np.dtype(np.int64), "1 missing values, which int64 cannot hold"),
        (pa.array([1.5]), np.dtype(np.int64), "readable as int64"),
        (pa.array([[1.0]]), FLOAT, "readable as float32"),
    ],
)
def test_a_table_of_other_values(values: pa.Array, dtype: np.dtype, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        columns_from_table(pa.table({"price": values}), {"price": dtype})
    assert "'price'" in str(caught.value)
