"""What a real TF Serving answered, request by request: the development server answers the same.

rest_answers.json.gz holds 327 REST requests and the answers of a tensorflow_model_server built from its
repository's HEAD of 2026-07-30 against TensorFlow 2.21, batching off, with the model of server_fixtures as
version 1 of `clicks`. Per entry: name, method, path, headers, body, status, content_type, answer (text, or
base64 where it is not UTF-8; null = no body). Recorded, not written: a wrong answer here is never edited.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.server_fixtures import Served, contract_server

ENTRIES: dict[str, dict[str, Any]] = {
    entry["name"]: entry
    for entry in json.loads(
        gzip.decompress(Path(__file__).with_name("rest_answers.json.gz").read_bytes())
    )
}

# Where the development server stays apart, and with which status. docs/tf_serving.md has the reasons.
OTHER_STATUS = {
    "GET /healthz": 200,  # one address for probes, which TF Serving has not
    "deep 100": 400,  # arrays here have 64 dimensions at most, tensors 254
    "deep 254": 400,
}
# Of several inputs TF Serving takes the one that its hash map has first, the development server the
# first by name: the same refusal about another input.
OTHER_TEXT = {"inputs {}", "rows b64 first"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with contract_server(tmp_path_factory.mktemp("models")) as running:
        yield running


def content(recorded: dict[str, str] | None) -> bytes:
    if recorded is None:
        return b""
    return recorded["text"].encode() if "text" in recorded else base64.b64decode(recorded["base64"])


def ask(served: Served, entry: dict[str, Any]) -> tuple[int, str | None, bytes]:
    """Status, content type, body."""
    connection = http.client.HTTPConnection(served.rest_address, timeout=60)
    try:
        body = None if entry["body"] is None else content(entry["body"])
        connection.request(entry["method"], entry["path"], body, entry["headers"])
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read()
    finally:
        connection.close()


def meaning(body: bytes) -> object:
    """A JSON answer parsed, the order of names aside; NaN equal to itself."""
    try:
        document = json.loads(body.decode("utf-8", "surrogateescape"))
    except ValueError:
        return body
    if isinstance(document, dict) and "method_name: " in str(document.get("error")):
        # protobuf's debug text: a prefix with a random number of spaces, maps in any order.
        return sorted(re.sub(r"goo\.gle/debugstr *\n", "", document["error"]).splitlines())
    # TensorFlow counts the functions of the process that exports a model, and names them by it.
    return re.sub(
        r"(\{\{function_node \w+?)_\d+\}\}", r"\1}}", json.dumps(document, sort_keys=True)
    )


def test_all_answers_are_there() -> None:
    assert len(ENTRIES) == 327
    assert ENTRIES.keys() >= OTHER_STATUS.keys() | OTHER_TEXT


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in OTHER_STATUS])
def test_the_same_answer(served: Served, name: str) -> None:
    entry = ENTRIES[name]
    status, content_type, body = ask(served, entry)
    assert (status, content_type) == (entry["status"], entry["content_type"])
    assert (meaning(body) == meaning(content(entry["answer"]))) == (name not in OTHER_TEXT), body


@pytest.mark.parametrize("name", OTHER_STATUS)
def test_apart_on_purpose(served: Served, name: str) -> None:
    status, _, body = ask(served, ENTRIES[name])
    assert status == OTHER_STATUS[name] != ENTRIES[name]["status"], body


def test_whitespace_is_the_same_too(served: Served) -> None:
    """Where there is one output, nothing depends on a hash map: byte for byte."""
    ones = [
        entry
        for entry in ENTRIES.values()
        if re.search("one_to_one|classify|regress", content(entry["body"]).decode("latin-1"))
        and entry["status"] == 200
        and b'"scores"' not in content(entry["answer"])
    ]
    assert len(ones) > 40
    for entry in ones:
        assert ask(served, entry)[2] == content(entry["answer"]), entry["name"]
