"""A small hand-made SavedModel whose answers are known without TensorFlow, and calls to a server.

    logit = bias + 0.5 * price + 0.25 * bytes in city      (a missing price, NaN, counts as 0)

`python -m tests.serving.server_fixtures MODELS_DIR` publishes it as version 1 of model `clicks`:
what a real TF Serving must serve for the contract tests to run against it (TF_SERVING_ADDRESS).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from serving.server.local_server import LocalServer

MODEL = "clicks"
PATH = f"/v1/models/{MODEL}"
EXAMPLE_SPEC = {
    "price": tf.io.FixedLenFeature([], tf.float32, default_value=float("nan")),
    "city": tf.io.FixedLenFeature([], tf.string, default_value=""),
}


class ClickModule(tf.Module):
    """The bias is the version's number, so that an answer tells which version gave it."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = tf.Variable(bias, dtype=tf.float32)

    def logits(self, price: tf.Tensor, city: tf.Tensor) -> tf.Tensor:
        known = tf.where(tf.math.is_nan(price), 0.0, price)
        return self.bias + 0.5 * known + 0.25 * tf.cast(tf.strings.length(city), tf.float32)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, name="price"),
            tf.TensorSpec([None], tf.string, name="city"),
        ]
    )
    def serving_default(self, price: tf.Tensor, city: tf.Tensor) -> dict[str, tf.Tensor]:
        logit = self.logits(price, city)
        return {"probability": tf.sigmoid(logit), "logit": logit}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serialized_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(examples, EXAMPLE_SPEC)
        return self.serving_default(parsed["price"], parsed["city"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        probability = self.serialized_examples(inputs)["probability"]
        labels = tf.broadcast_to(tf.constant(["no", "click"]), [tf.size(probability), 2])
        return {"classes": labels, "scores": tf.stack([1 - probability, probability], axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": self.serialized_examples(inputs)["logit"]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="price")])
    def one_to_one(self, price: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logit": self.bias + 0.5 * price}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.int64, name="ids"),
            tf.TensorSpec([None], tf.string, name="raw"),
        ]
    )
    def echo(self, ids: tf.Tensor, raw: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"ids": ids + 0, "text": tf.identity(raw), "raw_bytes": tf.identity(raw)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="price")])
    def fails_on_negative(self, price: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.assert_non_negative(price, message="price")]):
            return {"logit": tf.identity(price)}


def float32(values: Sequence[float]) -> np.ndarray:
    """An array of float32; without it every list of numbers would be sent as float64."""
    return np.array(values, dtype=np.float32)


def expected_logits(bias: float, price: Sequence[float], city: Sequence[bytes]) -> np.ndarray:
    """The model's formula in numpy, from this file's first lines."""
    known = np.where(np.isnan(price), 0.0, price)
    return np.float32(bias) + 0.5 * known + 0.25 * np.array([len(text) for text in city])


def export(path: Path, bias: float) -> Path:
    """Writes the SavedModel to `path`."""
    module = ClickModule(bias)
    names = [
        "serving_default",
        "serialized_examples",
        "classify",
        "regress",
        "one_to_one",
        "echo",
        "fails_on_negative",
    ]
    tf.saved_model.save(module, str(path), {name: getattr(module, name) for name in names})
    return path


def publish(source: Path, models_dir: Path, version: int, name: str = MODEL) -> Path:
    """Copies beside, then renames: nothing half-written ever has an integer name."""
    target = models_dir / name / str(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = target.with_name(f".tmp-{version}")
    shutil.copytree(source, hidden)
    os.rename(hidden, target)
    return target


def example(**features: object) -> tf.train.Example:
    """A tf.Example: float -> float_list, bytes -> bytes_list."""
    result = tf.train.Example()
    for name, value in features.items():
        feature = result.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.float_list.value.append(value)
    return result


@functools.cache
def exported(bias: float) -> Path:
    """The SavedModel with this bias, written once a process."""
    directory = tempfile.mkdtemp(prefix="clickparity-test-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return export(Path(directory) / "saved_model", bias)


def rest(
    address: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """One REST call over a connection of its own; a body that is no bytes is sent as JSON."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, payload, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def error_of(body: bytes) -> str:
    """The message in a REST error."""
    return str(json.loads(body.decode("utf-8", "surrogateescape"))["error"])


def predict_request(
    signature_name: str = "", version: int | None = None, name: str = MODEL, **inputs: object
) -> predict_pb2.PredictRequest:
    """A PredictRequest; arrays and lists become tensors, TensorProtos stay."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature_name
    if version is not None:
        request.model_spec.version.value = version
    for alias, value in inputs.items():
        is_proto = isinstance(value, tensor_pb2.TensorProto)
        request.inputs[alias].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
    return request


def call(
    channel: grpc.Channel, method: str, request: bytes, service: str = "PredictionService"
) -> bytes:
    """One gRPC call, bytes in and out: a malformed proto can be sent too."""
    return channel.unary_unary(f"/tensorflow.serving.{service}/{method}")(request, timeout=120)


def predict(channel: grpc.Channel, request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
    """Predict; arrays by output name."""
    response = predict_pb2.PredictResponse.FromString(
        call(channel, "Predict", request.SerializeToString())
    )
    return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


@dataclass
class Served:
    """A running server that has this model, version 1, under its name."""

    rest_address: str
    channel: grpc.Channel

    def post(self, body: object, path: str = PATH + ":predict") -> tuple[int, bytes]:
        return rest(self.rest_address, "POST", path, body)

    def get(self, path: str) -> tuple[int, bytes]:
        return rest(self.rest_address, "GET", path)


@contextlib.contextmanager
def contract_server(models_dir: Path) -> Iterator[Served]:
    """The embedded server, or the real one that TF_SERVING_ADDRESS=HOST:GRPC,HOST:REST names."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with contextlib.ExitStack() as stack:
        real = os.environ.get("TF_SERVING_ADDRESS")
        if real:
            grpc_address, rest_address = real.split(",")
        else:
            publish(exported(1.0), models_dir, 1)
            server = stack.enter_context(LocalServer(models_dir))
            grpc_address, rest_address = server.grpc_address, server.rest_address
        channel = stack.enter_context(grpc.insecure_channel(grpc_address, options=options))
        yield Served(rest_address, channel)


def tensor_of(dtype: int, shape: list[int], **fields: object) -> tensor_pb2.TensorProto:
    """A TensorProto whose fields need not fit each other."""
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


if __name__ == "__main__":
    print(publish(exported(1.0), Path(sys.argv[1]), 1))
