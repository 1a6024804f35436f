"""Seeded requests over HTTP, good ones and bad ones by kind, each with the statuses that TF Serving gives."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from tests.serving.server.bad_requests import HUGE_TEXT_BYTES, Case, Truth, by_signature

__all__ = ["HTTP_KINDS", "SOCKET_KINDS", "http_case", "socket_case"]

OK, BAD, NOT_FOUND = {"200"}, {"400"}, {"404"}

HTTP_KINDS: dict[str, float] = {
    "good columns": 3,
    "good rows": 3,
    "wrong dtype": 3,
    "wrong shape": 3,
    "missing key": 3,
    "unknown key": 3,
    "ragged columns": 3,
    "empty batch": 2,
    "NaN and infinity": 3,
    "invalid UTF-8": 3,
    "10 MB string": 0.02,
    "broken base64": 2,
    "wrong signature": 2,
    "unknown version": 2,
    "unknown model": 1,
    "wrong path": 2,
    "wrong method": 1,
    "bad Example": 3,
    "deep nesting": 1,
    "truncated JSON": 4,
    "changed bytes": 6,
    "random bytes": 3,
}
SOCKET_KINDS: dict[str, float] = {
    "truncated HTTP": 2,
    "random HTTP": 2,
    "wrong lengths": 2,
    "changed HTTP": 2,
}


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _columns(inputs: dict[str, np.ndarray]) -> dict[str, list]:
    return {
        name: [_text(v) if isinstance(v, bytes) else v for v in values.tolist()]
        for name, values in inputs.items()
    }


def _rows(columns: dict[str, list]) -> list[dict[str, Any]]:
    size = len(next(iter(columns.values())))
    return [{name: values[i] for name, values in columns.items()} for i in range(size)]


def http_case(truth: Truth, kind: str, rng: np.random.Generator) -> Case:
    """A request of this kind over a sound connection."""
    raw, logits = truth.some(rng, 64 if kind.startswith("good") and rng.random() < 0.1 else 4)
    columns = _columns(by_signature(raw, "serving_default"))
    numbers = sorted(k for k, v in columns.items() if isinstance(v[0], float))
    texts = sorted(k for k, v in columns.items() if not isinstance(v[0], float))
    number = numbers[int(rng.integers(len(numbers)))]
    text = texts[int(rng.integers(len(texts)))]
    key = sorted(columns)[int(rng.integers(len(columns)))]
    path = f"/v1/models/{truth.name}"
    target, allowed, by_rows = f"POST {path}:predict", BAD, rng.random() < 0.5
    body: dict[str, Any] | bytes | None = None
    known = None
    if kind in ("good columns", "good rows"):
        known, allowed, by_rows = logits, OK, kind == "good rows"
    elif kind == "wrong dtype":
        columns[number][0] = ["1", None, True, {"b64": "YQ=="}, {}][int(rng.integers(5))]
        if rng.random() < 0.5:
            columns[text][0] = [1.5, None, False, {"b65": "YQ=="}][int(rng.integers(4))]
    elif kind == "wrong shape":
        columns[key] = [[v, v] for v in columns[key]]
        if rng.random() < 0.5:
            columns[key][0] = [columns[key][0]]
    elif kind == "missing key":
        del columns[key]
    elif kind == "unknown key":
        columns[["x", "", "é"][int(rng.integers(3))]] = [1.0] * len(raw)
        by_rows = True  # columns may hold more than the inputs: TF Serving looks for these only
    elif kind == "ragged columns":
        columns[key] = columns[key] + columns[key][:1]
        by_rows = False
    elif kind == "empty batch":
        columns = {name: [] for name in columns}
        body = {"instances": []} if by_rows else {"inputs": columns}
        allowed = BAD if by_rows else OK
    elif kind == "NaN and infinity":
        odd = [float("nan"), float("inf"), float("-inf"), 3.4e38, 1e-45]
        columns[number] = [odd[int(rng.integers(len(odd)))] for _ in columns[number]]
        allowed = OK
    elif kind == "invalid UTF-8":
        columns[text][0] = "MARK"
        document = {"instances": _rows(columns)} if by_rows else {"inputs": columns}
        body = json.dumps(document).encode().replace(b"MARK", b"\xff\xc0\x80\xfe")
        allowed = OK
    elif kind == "10 MB string":
        columns[text][0], allowed = "x" * HUGE_TEXT_BYTES, OK
    elif kind == "broken base64":
        columns[text][0] = {"b64": ["!", "YQ=", "=" * 9, "\u00e9"][int(rng.integers(4))]}
    elif kind == "unknown version":
        version = ["7", "0", str(2**62), str(10**30), "x"][int(rng.integers(5))]
        target = f"POST {path}/versions/{version}:predict"
        allowed = BAD if version in ("x", str(10**30)) else NOT_FOUND
    elif kind == "unknown model":
        target = f"POST /v1/models/{['nope', '%20', 'a%2Fb'][int(rng.integers(3))]}:predict"
        allowed = NOT_FOUND
    elif kind == "wrong path":
        wrong = [
            path,
            f"{path}:Predict",
            f"{path}:explain",
            f"{path}:predict?x=1",
            "/v1/",
            "/v2",
            "/",
        ]
        target, allowed = f"POST {wrong[int(rng.integers(len(wrong)))]}", BAD | NOT_FOUND
    elif kind == "wrong method":
        target = f"{['PUT', 'DELETE', 'PATCH'][int(rng.integers(3))]} {path}:predict"
    elif kind == "bad Example":
        call = ["classify", "regress"][int(rng.integers(2))]
        bad: Any = [None, [[1.0]], [1.0, "a"], [2**63], {"x": 1}][int(rng.integers(5))]
        target = f"POST {path}:{call}"
        body = {"signature_name": call, "examples": [{number: bad}]}
    elif kind == "deep nesting":
        depth = int(rng.integers(65, 5000))
        start = b'{"inputs": {"%s": ' % key.encode()
        body = start + b"[" * depth + b"]" * depth + b"}}"
    elif kind == "random bytes":
        body, allowed = rng.bytes(int(rng.integers(0, 200))), BAD
    if body is None:
        body = {"instances": _rows(columns)} if by_rows else {"inputs": columns}
        if kind == "wrong signature":
            body["signature_name"] = ["nope", "Compact", 3, None][int(rng.integers(4))]
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    if kind == "truncated JSON":
        sent = sent[: int(rng.integers(0, len(sent)))]
    elif kind == "changed bytes":
        changed = bytearray(sent)
        for _ in range(int(rng.integers(1, 6))):
            place = int(rng.integers(0, len(sent)))
            changed[place : place + 1] = rng.bytes(int(rng.integers(0, 3)))
        sent, allowed = bytes(changed), OK | BAD
    return Case(kind, "rest", target, sent, frozenset(allowed), known)


def socket_case(truth: Truth, kind: str, rng: np.random.Generator) -> Case:
    """Bytes for a connection of its own, which the server must answer or close."""
    good = http_case(truth, "good columns", rng)
    head = f"{good.target} HTTP/1.1\r\nHost: x\r\n".encode()
    whole = head + b"Content-Length: %d\r\n\r\n" % len(good.body) + good.body
    # 408, 414, 431, 501, 505: what HTTP has for requests that are cut, too long, or of another kind.
    allowed = {"400", "404", "408", "411", "413", "414", "431", "501", "505", "closed"}
    if kind == "truncated HTTP":
        data = whole[: int(rng.integers(1, len(whole)))]
    elif kind == "random HTTP":
        data = rng.bytes(int(rng.integers(1, 300)))
    elif kind == "wrong lengths":
        lines = [
            b"Content-Length: -5",
            b"Content-Length: 99999999999999999999999999",
            b"Content-Length: five",
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
            b"Content-Encoding: gzip\r\nContent-Length: %d" % len(good.body),
            b"X: " + b"x" * 70_000,
        ]
        data = head + lines[int(rng.integers(len(lines)))] + b"\r\n\r\n" + good.body
    else:
        changed = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            changed[int(rng.integers(0, len(head) + 30))] = int(rng.integers(256))
        data = bytes(changed)
        allowed = allowed | {"200"}
    return Case(kind, "socket", "", data, frozenset(allowed))
