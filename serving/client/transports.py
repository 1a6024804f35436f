"""The two wires to TF Serving: one request, one deadline, no retry; see serving.client.client."""

from __future__ import annotations

import abc
import base64
import contextlib
import json
import urllib.parse
from collections.abc import Iterator, Mapping

import grpc
import numpy as np
import urllib3
from google.protobuf import json_format
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from urllib3.exceptions import HTTPError, NewConnectionError, TimeoutError

from serving.wire.tensors import numpy_dtype, parse_tensor, tensor_proto

__all__ = ["CallError", "GrpcTransport", "RestTransport", "Transport", "UnavailableError"]

Signatures = Mapping[str, meta_graph_pb2.SignatureDef]

_KEPT_CONNECTIONS = 64  # more threads than that at once open connections that are not kept


class CallError(Exception):
    """The server said no; `code` is gRPC's, also for REST."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code, self.message = code, message


class UnavailableError(CallError):
    """Nobody answers, or the server asks to come back later: the only failure worth a retry."""

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, message)


class Transport(abc.ABC):
    """One model (and version) behind one address; thread-safe.

    Args:
        address: "host:port".
        name: the model.
        version: None for the latest.
    """

    def __init__(self, address: str, name: str, version: int | None) -> None:
        self.address, self.name, self.version = address, name, version

    @abc.abstractmethod
    def signatures(self, timeout_s: float) -> Signatures:
        """The model's signatures by name.

        Raises:
            CallError: with the server's status and message.
        """

    @abc.abstractmethod
    def predict(
        self,
        signature_name: str,
        signature: meta_graph_pb2.SignatureDef,
        inputs: Mapping[str, np.ndarray],
        timeout_s: float,
    ) -> dict[str, np.ndarray]:
        """All outputs by name.

        Raises:
            CallError: with the server's status and message.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the connections."""


class GrpcTransport(Transport):
    """PredictionService over gRPC."""

    def __init__(self, address: str, name: str, version: int | None) -> None:
        super().__init__(address, name, version)
        self._channel = grpc.insecure_channel(
            address,
            options=[
                (
                    "grpc.max_receive_message_length",
                    -1,
                ),  # the default of 4 MB is a few thousand rows
                ("grpc.max_send_message_length", -1),
                # grpcio backs off for up to two minutes before it dials again; retries are ours.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def signatures(self, timeout_s: float) -> Signatures:
        """GetModelMetadata."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec(""), metadata_field=["signature_def"]
        )
        try:
            response = self._stub.GetModelMetadata(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise _call_failed(error) from None
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return dict(signatures.signature_def)

    def predict(
        self,
        signature_name: str,
        signature: meta_graph_pb2.SignatureDef,
        inputs: Mapping[str, np.ndarray],
        timeout_s: float,
    ) -> dict[str, np.ndarray]:
        """Predict."""
        request = predict_pb2.PredictRequest(model_spec=self._spec(signature_name))
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tensor_proto(array))
        try:
            response = self._stub.Predict(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise _call_failed(error) from None
        outputs: dict[str, np.ndarray] = {}
        for name, proto in response.outputs.items():
            parsed = parse_tensor(proto)
            if parsed is None:
                raise CallError(grpc.StatusCode.INTERNAL, f"output {name!r} is no tensor")
            outputs[name] = parsed
        return outputs

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _spec(self, signature_name: str) -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(name=self.name, signature_name=signature_name)
        if self.version is not None:
            spec.version.value = self.version
        return spec


class RestTransport(Transport):
    """The REST API, column form, over connections that are kept alive."""

    def __init__(self, address: str, name: str, version: int | None) -> None:
        super().__init__(address, name, version)
        self._path = f"/v1/models/{urllib.parse.quote(name, safe='')}"
        if version is not None:
            self._path += f"/versions/{version}"
        host, _, port = address.rpartition(":")
        self._pool = urllib3.HTTPConnectionPool(host, int(port), maxsize=_KEPT_CONNECTIONS)

    def signatures(self, timeout_s: float) -> Signatures:
        """GET .../metadata."""
        text = self._exchange("GET", self._path + "/metadata", timeout_s)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with _as_tf_serving_answers():
            found = json.loads(text)["metadata"]["signature_def"]
            json_format.ParseDict(found, signatures, ignore_unknown_fields=True)
        return dict(signatures.signature_def)

    def predict(
        self,
        signature_name: str,
        signature: meta_graph_pb2.SignatureDef,
        inputs: Mapping[str, np.ndarray],
        timeout_s: float,
    ) -> dict[str, np.ndarray]:
        """POST ...:predict. NaN and Infinity are sent bare, which TF Serving reads."""
        body = {
            "signature_name": signature_name,
            "inputs": {name: _json_values(array.tolist()) for name, array in inputs.items()},
        }
        text = self._exchange("POST", self._path + ":predict", timeout_s, body)
        with _as_tf_serving_answers():
            answer = json.loads(text)["outputs"]
            if len(signature.outputs) == 1:  # one output comes without its name
                answer = {next(iter(signature.outputs)): answer}
            return {
                name: _nested_array(values, numpy_dtype(signature.outputs[name].dtype))
                for name, values in answer.items()
            }

    def close(self) -> None:
        """Closes the kept connections."""
        self._pool.close()

    def _exchange(self, method: str, path: str, timeout_s: float, body: object = None) -> str:
        timeout = urllib3.Timeout(total=timeout_s)
        try:
            response = self._pool.request(
                method, path, json=body, timeout=timeout, retries=False, redirect=False
            )
        except HTTPError as error:
            # urllib3 counts a refused connection among its timeouts.
            if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
                raise CallError(
                    grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {timeout_s:.3g} s"
                ) from None
            # Predict changes nothing: it may be sent again, also where the connection broke late.
            raise UnavailableError(str(error.__cause__ or error.args[-1])) from None
        text = response.data.decode("utf-8", "surrogateescape")
        if response.status == 200:
            return text
        try:
            message = str(json.loads(text)["error"])
        except (ValueError, KeyError, TypeError):
            message = text[:200]
        if response.status == 503:
            raise UnavailableError(message)
        raise CallError(_CODES.get(response.status, grpc.StatusCode.UNKNOWN), message)


@contextlib.contextmanager
def _as_tf_serving_answers() -> Iterator[None]:
    """Something else may listen on the port, and answer 200 with whatever it likes."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, json_format.ParseError) as error:
        raise CallError(
            grpc.StatusCode.INTERNAL,
            f"the answer is not that of a model server ({type(error).__name__}: {error})",
        ) from None


_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def _call_failed(error: grpc.RpcError) -> CallError:
    code, details = error.code(), error.details() or ""
    return (
        UnavailableError(details)
        if code is grpc.StatusCode.UNAVAILABLE
        else CallError(code, details)
    )


def _json_values(value: object) -> object:
    """Nested lists with bytes as text, or as {"b64": ...} where they are no UTF-8."""
    if isinstance(value, list):
        return [_json_values(element) for element in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    return value


def _nested_array(values: object, dtype: np.dtype | None) -> np.ndarray:
    if dtype is None or dtype.kind != "O":
        return np.array(values, dtype=dtype)
    texts = np.array(values, dtype=object)
    array = np.empty(texts.size, dtype=object)
    array[:] = [_text_bytes(text) for text in texts.ravel().tolist()]
    return array.reshape(texts.shape)


def _text_bytes(value: object) -> bytes:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return str(value).encode("utf-8", "surrogateescape")
