"""Seeded requests over gRPC, good ones and bad ones by kind, each with the statuses that TF Serving gives.

The bad ones start as a good request for the product's own export and are made wrong in one way, so that
they pass every check before the one that is meant to refuse them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from google.protobuf.message import DecodeError, Message
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    predict_pb2,
    regression_pb2,
)

from pipeline.transform.raw_rows import RawRows
from serving.wire.tensors import tensor_proto

__all__ = ["GRPC_KINDS", "REQUEST_CLASSES", "Case", "Truth", "grpc_case"]

OK, INVALID, PRECONDITION = {"OK"}, {"INVALID_ARGUMENT"}, {"FAILED_PRECONDITION"}
NOT_FOUND = {"NOT_FOUND"}
# What a request that was changed blindly may still turn out to be.
CALLER = OK | INVALID | PRECONDITION | NOT_FOUND | {"OUT_OF_RANGE", "UNIMPLEMENTED"}
# C++ gRPC's own answer to bytes that are no message of the method's type.
NO_MESSAGE = {"INTERNAL"}
HUGE_TEXT_BYTES = 10 * 1024 * 1024

REQUEST_CLASSES: dict[str, type[Message]] = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
}


@dataclasses.dataclass(frozen=True)
class Truth:
    """The served model, and rows whose logits are known.

    Attributes:
        name: of the model.
        raw: rows.
        logits: float32 [len(raw)].
    """

    name: str
    raw: RawRows
    logits: np.ndarray

    def some(self, rng: np.random.Generator, most: int = 4) -> tuple[RawRows, np.ndarray]:
        """1 to `most` neighbouring rows and their logits."""
        size = int(rng.integers(1, most + 1))
        start = int(rng.integers(0, len(self.raw) - size + 1))
        part = slice(start, start + size)
        return self.raw.take(part), self.logits[part]


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to send.

    Attributes:
        kind: what is wrong with it.
        wire: "grpc", "rest" or "socket".
        target: the gRPC method, or "POST /v1/...".
        body: the bytes.
        allowed: gRPC codes by name, or HTTP statuses as text; "closed" is a connection without answer.
        logits: what must come back; None where nothing is known of it.
    """

    kind: str
    wire: str
    target: str
    body: bytes
    allowed: frozenset[str]
    logits: np.ndarray | None = None


def by_signature(raw: RawRows, signature_name: str) -> dict[str, np.ndarray]:
    """The inputs of a signature, as arrays that a test may change."""
    forms = {
        "serving_default": RawRows.by_name,
        "compact": RawRows.compact,
        "serialized_examples": RawRows.examples,
    }
    return {name: np.array(values) for name, values in forms[signature_name](raw).items()}


def predict_request(
    name: str, signature_name: str, inputs: Mapping[str, np.ndarray]
) -> predict_pb2.PredictRequest:
    """A PredictRequest with these arrays."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature_name
    for key, values in inputs.items():
        request.inputs[key].CopyFrom(tensor_proto(values))
    return request


Inputs = dict[str, np.ndarray]


def _any_key(inputs: Inputs, rng: np.random.Generator) -> str:
    return sorted(inputs)[int(rng.integers(len(inputs)))]


def _float_key(inputs: Inputs, rng: np.random.Generator) -> str:
    return _any_key({k: v for k, v in inputs.items() if v.dtype == np.float32}, rng)


def _text_key(inputs: Inputs, rng: np.random.Generator) -> str:
    return _any_key({k: v for k, v in inputs.items() if v.dtype == object}, rng)


def _wrong_dtype(inputs: Inputs, rng: np.random.Generator) -> None:
    key = _any_key(inputs, rng)
    of = [np.float64, np.int32, np.int64, np.bool_, np.uint8, object, np.float32]
    dtype = np.dtype(of[int(rng.integers(len(of)))])
    if dtype == inputs[key].dtype:
        dtype = np.dtype(np.int16)
    empty: object = b"1" if dtype.kind == "O" else 1
    inputs[key] = np.full(inputs[key].shape, empty, dtype)


def _wrong_shape(inputs: Inputs, rng: np.random.Generator) -> None:
    key = _any_key(inputs, rng)
    shape = inputs[key].shape
    wrong: list[tuple[int, ...]] = [(*shape, 2), (), (*shape, 1, 3)]
    if len(shape) == 2:  # a matrix may have too few columns, one, or too many
        wrong += [(shape[0], 1), (shape[0], shape[1] - 1), (shape[0], shape[1] + 1)]
    inputs[key] = np.resize(inputs[key], wrong[int(rng.integers(len(wrong)))])


def _ragged(inputs: Inputs, rng: np.random.Generator) -> None:
    key = _any_key(inputs, rng)
    rows = len(inputs[key]) + int(rng.integers(1, 4))
    inputs[key] = np.resize(inputs[key], (rows, *inputs[key].shape[1:]))


def _missing_key(inputs: Inputs, rng: np.random.Generator) -> None:
    del inputs[_any_key(inputs, rng)]


def _unknown_key(inputs: Inputs, rng: np.random.Generator) -> None:
    inputs[["x", "", "é", "price " * 20][int(rng.integers(4))]] = np.zeros(1, np.float32)


def _empty_batch(inputs: Inputs, rng: np.random.Generator) -> None:
    for key in inputs:
        inputs[key] = inputs[key][:0]


def _not_finite(inputs: Inputs, rng: np.random.Generator) -> None:
    values = inputs[_float_key(inputs, rng)]
    odd = np.array([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45], np.float32)
    values[...] = rng.choice(odd, values.shape)


def _fill_text(inputs: Inputs, rng: np.random.Generator, text: bytes) -> None:
    values = inputs[_text_key(inputs, rng)]
    values.reshape(-1)[int(rng.integers(values.size))] = text


def _invalid_utf8(inputs: Inputs, rng: np.random.Generator) -> None:
    _fill_text(inputs, rng, b"\xff\xc0\x80" + rng.bytes(int(rng.integers(0, 40))))


def _huge_text(inputs: Inputs, rng: np.random.Generator) -> None:
    _fill_text(inputs, rng, b"x" * HUGE_TEXT_BYTES)


Change = Callable[[Inputs, np.random.Generator], None]
_OF_COLUMNS = ("serving_default", "compact")
_CHANGED: dict[str, tuple[Change, set[str], tuple[str, ...]]] = {
    "wrong dtype": (_wrong_dtype, INVALID, _OF_COLUMNS),
    "wrong shape": (_wrong_shape, INVALID, _OF_COLUMNS),
    "missing key": (_missing_key, INVALID, _OF_COLUMNS),
    "unknown key": (_unknown_key, INVALID, (*_OF_COLUMNS, "serialized_examples")),
    "ragged columns": (_ragged, INVALID, _OF_COLUMNS),
    "empty batch": (_empty_batch, OK, (*_OF_COLUMNS, "serialized_examples")),
    "NaN and infinity": (_not_finite, OK, _OF_COLUMNS),
    "invalid UTF-8": (_invalid_utf8, OK, _OF_COLUMNS),
    "10 MB string": (_huge_text, OK, _OF_COLUMNS),
}
_SIGNATURES = ("serving_default", "compact", "serialized_examples")
# Kind -> how often it is drawn: 10 MB a request would be all that the rest waits for.
GRPC_KINDS: dict[str, float] = {
    "good": 4,
    **{kind: 0.02 if kind == "10 MB string" else 3 for kind in _CHANGED},
    "wrong signature": 2,
    "unknown version": 2,
    "unknown model": 1,
    "unknown output": 1,
    "tensor that is none": 3,
    "bad Example": 3,
    "good Classify": 1,
    "bad Classify": 3,
    "metadata": 1,
    "truncated proto": 3,
    "changed bytes": 6,
    "random bytes": 3,
}


def grpc_case(truth: Truth, kind: str, rng: np.random.Generator) -> Case:
    """A request of this kind."""
    if kind in _CHANGED:
        change, allowed, of = _CHANGED[kind]
        name = of[int(rng.integers(len(of)))]
        raw, _ = truth.some(rng)
        inputs = by_signature(raw, name)
        change(inputs, rng)
        return _predict(kind, predict_request(truth.name, name, inputs), allowed)
    if kind in ("good Classify", "bad Classify", "metadata"):
        return _other_method(truth, kind, rng)
    raw, logits = truth.some(rng, 64 if kind == "good" and rng.random() < 0.1 else 4)
    name = _SIGNATURES[int(rng.integers(3))]
    request = predict_request(truth.name, name, by_signature(raw, name))
    if kind == "good":
        return _predict(kind, request, OK, logits)
    if kind == "wrong signature":
        request.model_spec.signature_name = ["nope", "Compact", "é"][int(rng.integers(3))]
        return _predict(kind, request, PRECONDITION)
    if kind == "unknown version":
        request.model_spec.version.value = [0, 7, 2**62, -1][int(rng.integers(4))]
        return _predict(kind, request, NOT_FOUND)
    if kind == "unknown model":
        request.model_spec.name = ["nope", "../ctr", "x" * 5000, ""][int(rng.integers(4))]
        return _predict(kind, request, NOT_FOUND if request.model_spec.name else INVALID)
    if kind == "unknown output":
        request.output_filter.extend(["logit", ["nope", "logit"][int(rng.integers(2))]])
        return _predict(kind, request, INVALID)
    if kind == "tensor that is none":
        key = _any_key(dict.fromkeys(request.inputs, np.zeros(0)), rng)
        request.inputs[key].CopyFrom(_no_tensor(rng))
        return _predict(kind, request, INVALID)
    if kind == "bad Example":
        texts = np.array([rng.bytes(int(rng.integers(1, 60))) for _ in range(3)], object)
        texts[0] = b"\xff\xff"  # random bytes may be an Example, these are none
        request = predict_request(truth.name, "serialized_examples", {"examples": texts})
        return _predict(kind, request, INVALID)
    return _blind(kind, request.SerializeToString(), rng)


def _predict(
    kind: str, request: Message, allowed: set[str], logits: np.ndarray | None = None
) -> Case:
    return Case(kind, "grpc", "Predict", request.SerializeToString(), frozenset(allowed), logits)


def _blind(kind: str, body: bytes, rng: np.random.Generator) -> Case:
    """Bytes changed without regard to what they mean."""
    if kind == "truncated proto":
        body = body[: int(rng.integers(0, len(body)))]
    elif kind == "changed bytes":
        changed = bytearray(body)
        for _ in range(int(rng.integers(1, 6))):
            changed[int(rng.integers(0, min(len(body), 400)))] = int(rng.integers(256))
        body = bytes(changed)
    else:
        body = rng.bytes(int(rng.integers(0, 200)))
    method = sorted(REQUEST_CLASSES)[int(rng.integers(4))] if kind == "random bytes" else "Predict"
    try:
        REQUEST_CLASSES[method].FromString(body)
    except DecodeError:
        return Case(kind, "grpc", method, body, frozenset(NO_MESSAGE))
    return Case(kind, "grpc", method, body, frozenset(CALLER))


def _no_tensor(rng: np.random.Generator) -> tensor_pb2.TensorProto:
    """A TensorProto that describes no tensor: no size, no type, or content of another length."""
    proto = tensor_pb2.TensorProto(dtype=1)
    choice = int(rng.integers(4))
    if choice == 0:
        proto.tensor_shape.dim.add(size=-int(rng.integers(1, 2**40)))
    elif choice == 1:
        proto.tensor_shape.dim.add(size=2**40)
        proto.float_val.append(1.0)
    elif choice == 2:
        proto.tensor_shape.dim.add(size=2)
        proto.tensor_content = rng.bytes(7)
    else:
        proto.dtype = 0
    return proto


def _other_method(truth: Truth, kind: str, rng: np.random.Generator) -> Case:
    if kind == "metadata":
        metadata = get_model_metadata_pb2.GetModelMetadataRequest()
        metadata.model_spec.name = truth.name
        field = ["signature_def", "graph", ""][int(rng.integers(3))]
        metadata.metadata_field.append(field)
        allowed = OK if field == "signature_def" else INVALID
        return Case(
            kind, "grpc", "GetModelMetadata", metadata.SerializeToString(), frozenset(allowed)
        )
    method = ["Classify", "Regress"][int(rng.integers(2))]
    request = REQUEST_CLASSES[method]()
    request.model_spec.name = truth.name
    request.model_spec.signature_name = method.lower()
    raw, _ = truth.some(rng)
    for text in raw.examples()["examples"]:
        request.input.example_list.examples.add().ParseFromString(text)
    if kind == "good Classify":
        return Case(kind, "grpc", method, request.SerializeToString(), frozenset(OK))
    wrong = int(rng.integers(4))
    if wrong == 0:
        request.ClearField("input")
    elif wrong == 1:
        request.model_spec.signature_name = ["nope", "compact", "encode"][int(rng.integers(3))]
    elif wrong == 2:
        request.model_spec.signature_name = {"Classify": "regress", "Regress": "classify"}[method]
    else:
        example = request.input.example_list.examples[0]
        key = sorted(example.features.feature)[0]
        kept = example.features.feature[key].WhichOneof("kind")
        # Two values where the signature wants one, or of another type.
        field = "float_list" if kept == "float_list" else "bytes_list"
        values = getattr(example.features.feature[key], field).value
        values.extend([values[0]] * 2)
    return Case(kind, "grpc", method, request.SerializeToString(), frozenset(INVALID))
