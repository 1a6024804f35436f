"""TF Serving's errors: one status code and message, sent over gRPC and over HTTP."""

from __future__ import annotations

import grpc
import tensorflow as tf

__all__ = [
    "GRPC_MESSAGE_LIMIT",
    "ServingError",
    "failed_precondition",
    "from_tensorflow",
    "internal",
    "invalid_argument",
    "not_found",
    "unimplemented",
]

GRPC_MESSAGE_LIMIT = 1024
"""TF Serving cuts longer gRPC messages here (grpc_status_util.cc); REST has no cut."""

_CODE_OF_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

# model_servers/http_server.cc, ToHTTPStatusCode; what is not listed is 500.
_HTTP_STATUS: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class ServingError(Exception):
    """A request failed with a status that the client receives, in TF Serving's own words."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code.name}: {message}")

    @property
    def http_status(self) -> int:
        """The HTTP status that TF Serving's REST server sends for this code."""
        return _HTTP_STATUS.get(self.code, 500)

    @property
    def grpc_message(self) -> str:
        """The message as TF Serving's gRPC server sends it: cut at 1,024 characters.

        Bytes of the request that are no UTF-8, which C++ passes on, are replaced: grpcio cannot.
        """
        text = self.message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return (
            text if len(text) <= GRPC_MESSAGE_LIMIT else text[:GRPC_MESSAGE_LIMIT] + "...TRUNCATED"
        )


def invalid_argument(message: str) -> ServingError:
    """The request is wrong whatever the server's state."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def failed_precondition(message: str) -> ServingError:
    """The request is wrong for what is loaded (Predict on an unknown signature)."""
    return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)


def not_found(message: str) -> ServingError:
    """No such model or version is being served."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def unimplemented(message: str) -> ServingError:
    """A dtype or a call that the wire knows and this server does not offer."""
    return ServingError(grpc.StatusCode.UNIMPLEMENTED, message)


def internal(message: str) -> ServingError:
    """The server's own fault."""
    return ServingError(grpc.StatusCode.INTERNAL, message)


def from_tensorflow(error: tf.errors.OpError) -> ServingError:
    """The session's error: TensorFlow's codes are gRPC's."""
    code = _CODE_OF_NUMBER.get(error.error_code, grpc.StatusCode.UNKNOWN)
    return ServingError(code, error.message)
