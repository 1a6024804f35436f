"""The gRPC side: PredictionService, ModelService and grpc.health.v1 on one port."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server.metrics import UNKNOWN_MODEL, ServerMetrics
from serving.server.prediction_api import PredictionApi
from serving.server.status import ServingError, internal

__all__ = ["GrpcService"]

logger = logging.getLogger(__name__)

# HealthCheckResponse{status: SERVING} and {status: NOT_SERVING}; the package that holds the protos
# is not worth a dependency for four bytes.
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"


class GrpcService:
    """A gRPC server over a PredictionApi.

    Args:
        api: answers the calls.
        metrics: counts them.
        address: "host:port"; port 0 takes a free one, see `port`.
        max_request_bytes: larger messages are refused (RESOURCE_EXHAUSTED) before they are parsed.
        num_threads: requests that run at once; more wait.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        api: PredictionApi,
        metrics: ServerMetrics,
        address: str,
        *,
        max_request_bytes: int,
        num_threads: int,
    ) -> None:
        self._api, self._metrics = api, metrics
        self._pool = futures.ThreadPoolExecutor(num_threads, thread_name_prefix="grpc")
        self._server = grpc.server(
            self._pool,
            options=[
                ("grpc.max_receive_message_length", max_request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a port in use is an error, not a shared port
            ],
        )
        call = self._call
        prediction = {
            "Predict": call("Predict", predict_pb2.PredictRequest, api.predict),
            "Classify": call("Classify", classification_pb2.ClassificationRequest, api.classify),
            "Regress": call("Regress", regression_pb2.RegressionRequest, api.regress),
            "MultiInference": call(None, inference_pb2.MultiInferenceRequest, api.multi_inference),
            "GetModelMetadata": call(
                None, get_model_metadata_pb2.GetModelMetadataRequest, api.get_model_metadata
            ),
        }
        model = {
            "GetModelStatus": call(
                None, get_model_status_pb2.GetModelStatusRequest, api.get_model_status
            )
        }
        health = {"Check": grpc.unary_unary_rpc_method_handler(self._check_health)}
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "tensorflow.serving.PredictionService", prediction
                ),
                grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", model),
                grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
            )
        )
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(str(error)) from None
        if self.port == 0:
            raise OSError(f"cannot bind {address}")

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Refuses new calls (UNAVAILABLE), ends what runs within `grace_s`, cancels the rest."""
        self._server.stop(grace_s).wait()
        self._pool.shutdown(wait=True)

    def _check_health(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if request:  # only the whole server's health is known, which is the empty request
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return _SERVING if self._api.repository.is_ready() else _NOT_SERVING

    def _call(
        self, api_name: str | None, request_class: type[Message], answer: Callable[[Any], Message]
    ) -> grpc.RpcMethodHandler:
        """A handler that parses, answers, counts (calls with an `api_name`) and words errors."""

        def handle(body: bytes, context: grpc.ServicerContext) -> Message:
            started = time.perf_counter()
            request: Any = request_class()
            try:
                request.ParseFromString(body)
            except DecodeError:
                # C++ gRPC answers this itself: INTERNAL, and no message.
                context.abort(grpc.StatusCode.INTERNAL, "")
            answered: Message | ServingError
            try:
                answered = answer(request)
            except ServingError as error:
                answered = error
            except Exception as error:  # a bug here must not look like the caller's mistake
                logger.exception("%s failed", api_name or request_class.__name__)
                answered = internal(f"{type(error).__name__}: {error}")
            if api_name is not None:
                name = request.model_spec.name
                name = name if self._api.repository.is_known(name) else UNKNOWN_MODEL
                refused = isinstance(answered, ServingError)
                self._metrics.count_request(name, answered.code.name if refused else "OK")
                if not refused:
                    elapsed_us = (time.perf_counter() - started) * 1e6
                    self._metrics.observe_latency(name, api_name, "GRPC", elapsed_us)
            if isinstance(answered, ServingError):
                return context.abort(answered.code, answered.grpc_message)  # which raises
            return answered

        return grpc.unary_unary_rpc_method_handler(
            handle, response_serializer=request_class.SerializeToString
        )
