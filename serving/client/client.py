"""A client for TF Serving: columns in, arrays out, over gRPC or REST.

The model itself says what it takes (GetModelMetadata): the client converts each column to the dtype
of its input, cuts long columns into batches, keeps a deadline, and sends again what found nobody.
"""

from __future__ import annotations

import functools
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import grpc
import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2

from pipeline.errors import ClickparityError, ConfigError
from pipeline.schema import FeatureSchema
from pipeline.values import ColumnRule, column_rules
from serving.client.batched_server import is_about_another_request, largest_batch_of
from serving.client.columns import Column, columns_from_table, convert_column
from serving.client.transports import (
    CallError,
    GrpcTransport,
    RestTransport,
    Transport,
    UnavailableError,
)
from serving.export.batch_sizes import MAX_BATCH_SIZE
from serving.wire.tensors import dtype_name, numpy_dtype

__all__ = ["Column", "PredictClient", "columns_from_table"]

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 0.1, 5.0
_APART_S = (0.002, 0.02)  # longer than a batch waits for its rows: the next one has other callers


class _TooManyRowsError(Exception):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class PredictClient:
    """Asks one signature of one model; thread-safe; a context manager.

    Args:
        address: "host:port" of the gRPC or the REST API.
        name: the model's name.
        protocol: which of the two.
        timeout_s: how long a request (a batch, with all its attempts) may take.
        signature_name: which signature to call.
        version: the model version; None for the latest. With None the batches of one `predict` may
            be answered by two versions when a new one is published meanwhile.
        max_batch_size: rows a request, at most. Where the server batches and takes fewer, that many
            are sent from then on.
        max_attempts: how often a request is sent while nobody answers it. Other failures are final,
            but for one that a server that batches gives of another caller's request: it is sent
            once more.

    Raises:
        ConfigError: an argument makes no sense.
    """

    def __init__(
        self,
        address: str,
        name: str,
        *,
        protocol: Literal["grpc", "rest"] = "grpc",
        timeout_s: float = 10.0,
        signature_name: str = "serving_default",
        version: int | None = None,
        max_batch_size: int = MAX_BATCH_SIZE,
        max_attempts: int = 5,
    ) -> None:
        transports: dict[str, type[Transport]] = {"grpc": GrpcTransport, "rest": RestTransport}
        if protocol not in transports:
            raise ConfigError("protocol must be grpc or rest", repr(protocol))
        address = address.removeprefix("http://").rstrip("/")
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError("address must be HOST:PORT", repr(address), "Try localhost:8500.")
        if max_batch_size < 1 or max_attempts < 1 or timeout_s <= 0:
            raise ConfigError(
                "max_batch_size and max_attempts must be at least 1, timeout_s above 0",
                f"{max_batch_size}, {max_attempts}, {timeout_s}",
            )
        self.address, self.name, self.protocol = address, name, protocol
        self.signature_name, self.version = signature_name, version
        self._timeout_s, self._max_attempts = timeout_s, max_attempts
        self._max_batch_size = max_batch_size
        self._transport = transports[protocol](address, name, version)
        self._cached: meta_graph_pb2.SignatureDef | None = None
        self._described: tuple[FeatureSchema | None] | None = None

    def __enter__(self) -> PredictClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    @property
    def input_dtypes(self) -> dict[str, np.dtype]:
        """The signature's inputs and their dtypes (object for strings), as the model states them.

        Raises:
            ConfigError: no such model, version or signature.
            ClickparityError: the server does not answer.
        """
        inputs = self._signature().inputs
        return {name: _input_dtype(name, inputs[name].dtype) for name in sorted(inputs)}

    @property
    def schema(self) -> FeatureSchema | None:
        """The schema that the model was trained with, as its signature `schema` tells; None without one.

        Raises:
            ConfigError: no such model or version.
            ClickparityError: the server does not answer.
        """
        if self._described is None:
            signatures = self._with_retries(self._transport.signatures)
            found = signatures.get("schema")
            text = b""
            if found is not None and set(found.outputs) == {"schema"}:
                rows = {"rows": np.array([b""], object)}
                call = functools.partial(self._transport.predict, "schema", found, rows)
                (text,) = self._with_retries(call)["schema"].tolist()
            self._described = (FeatureSchema.from_yaml(text.decode()) if text else None,)
        return self._described[0]

    def rules(self) -> dict[str, ColumnRule]:
        """How the model reads each of its inputs, by input name; empty if it does not say.

        Raises:
            ClickparityError: as `schema`.
        """
        schema = self.schema
        if schema is None:
            return {}
        rules, names = column_rules(schema.inputs_only()), schema.input_names
        return {names[column]: rule for column, rule in rules.items() if column in names}

    def predict(self, columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
        """Scores the rows of `columns`.

        Args:
            columns: for each input of the signature its values, [B] or [B, ...].

        Returns:
            Each output of the signature, [B, ...]; strings as bytes in object arrays.

        Raises:
            ConfigError: an unknown or missing input, columns of different lengths, a value that is
                not of its input's dtype, an unknown model, version or signature, or whatever else
                the server calls an invalid argument.
            ClickparityError: the server does not answer, not in time, or fails.
        """
        signature = self._signature()
        arrays = self._arrays(columns)
        num_rows = len(next(iter(arrays.values())))
        if num_rows == 0:
            return {name: _empty(info) for name, info in signature.outputs.items()}
        parts: list[dict[str, np.ndarray]] = []
        start = 0
        while start < num_rows:
            stop = start + self._max_batch_size
            batch = {name: array[start:stop] for name, array in arrays.items()}
            try:
                parts.append(self._with_retries(functools.partial(self._ask, signature, batch)))
            except _TooManyRowsError as refused:
                self._send_at_most(refused.limit)
                continue
            start = stop
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    # -- the model's own description ---------------------------------------------------------------

    def _signature(self) -> meta_graph_pb2.SignatureDef:
        if self._cached is None:
            signatures = self._with_retries(self._transport.signatures)
            if self.signature_name not in signatures:
                known = ", ".join(sorted(name for name in signatures if name[:2] != "__"))
                raise ConfigError(
                    f"the model {self.name!r} must have the signature that is asked for",
                    repr(self.signature_name),
                    f"It has: {known}.",
                )
            self._cached = signatures[self.signature_name]
        return self._cached

    def _arrays(self, columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
        dtypes = self.input_dtypes
        missing, unknown = sorted(dtypes.keys() - columns), sorted(columns.keys() - dtypes)
        if missing or unknown:
            raise ConfigError(
                f"the columns must be the inputs of {self.name!r}, signature "
                f"{self.signature_name!r}",
                f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}",
                f"Its inputs are: {', '.join(dtypes)}.",
            )
        arrays = {
            name: convert_column(name, columns[name], dtype, lambda n: self.rules().get(n))
            for name, dtype in dtypes.items()
        }
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ConfigError("all columns must have the same number of rows", lengths)
        return arrays

    # -- one request -------------------------------------------------------------------------------

    def _ask(
        self,
        signature: meta_graph_pb2.SignatureDef,
        batch: Mapping[str, np.ndarray],
        timeout_s: float,
    ) -> dict[str, np.ndarray]:
        """One Predict call, and another if it was refused for what somebody else sent."""
        deadline = time.monotonic() + timeout_s
        call = functools.partial(self._transport.predict, self.signature_name, signature, batch)
        try:
            return call(timeout_s)
        except CallError as error:
            limit = largest_batch_of(error)
            if limit is not None and 0 < limit < len(next(iter(batch.values()))):
                raise _TooManyRowsError(limit) from None
            if not is_about_another_request(error, batch):
                raise
            logger.info("refused for another caller's request, sent again: %s", error.message)
        time.sleep(random.uniform(*_APART_S))
        return call(max(deadline - time.monotonic(), 1e-3))

    def _send_at_most(self, limit: int) -> None:
        if limit < self._max_batch_size:  # else another thread has come to know it first
            logger.warning(
                "the server at %s takes %d rows a request at most: sending so many, not %d",
                *(self.address, limit, self._max_batch_size),
            )
            self._max_batch_size = limit

    def _with_retries(self, call: Callable[[float], _Result]) -> _Result:
        """Calls with the time that is left, again while nobody answers; full jitter between."""
        deadline = time.monotonic() + self._timeout_s
        for attempt in range(1, self._max_attempts + 1):
            try:
                return call(max(deadline - time.monotonic(), 1e-3))
            except UnavailableError as error:
                # Jitter keeps the clients of a restarted server from coming back all at once.
                ceiling = min(_FIRST_BACKOFF_S * 2 ** (attempt - 1), _MAX_BACKOFF_S)
                pause_s = random.uniform(0, ceiling)
                if attempt == self._max_attempts or time.monotonic() + pause_s >= deadline:
                    raise ClickparityError(
                        f"the {self.protocol} server at {self.address} must be reachable",
                        f"{error.message} after {attempt} attempts",
                        "Is it running, and is this its port? `clickparity serve` starts one.",
                    ) from None
                logger.info("attempt %d found nobody at %s: %s", attempt, self.address, error)
                time.sleep(pause_s)
            except CallError as error:
                raise self._error(error) from None
        raise AssertionError("unreachable")

    def _error(self, failed: CallError) -> ClickparityError:
        self._cached = self._described = (
            None  # a new version may have another signature: ask again next time
        )
        if failed.code is grpc.StatusCode.NOT_FOUND:
            version = "any version" if self.version is None else f"version {self.version}"
            return ConfigError(
                f"the server at {self.address} must serve model {self.name!r}, {version}",
                failed.message,
                "Look at the name, and at what `clickparity versions` lists.",
            )
        if failed.code is grpc.StatusCode.INVALID_ARGUMENT:
            return ConfigError(f"the model {self.name!r} must accept the request", failed.message)
        if failed.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ClickparityError(
                f"the server at {self.address} must answer within {self._timeout_s:g} s",
                failed.message,
                "Allow more time, or send smaller batches.",
            )
        return ClickparityError(
            f"the server at {self.address} must answer for model {self.name!r}", failed
        )


def _input_dtype(name: str, dtype: int) -> np.dtype:
    result = numpy_dtype(dtype)
    if result is None:
        raise ConfigError(f"input {name!r} must have a dtype that can be sent", dtype_name(dtype))
    return result


def _empty(info: meta_graph_pb2.TensorInfo) -> np.ndarray:
    sizes = [max(dim.size, 0) for dim in info.tensor_shape.dim]
    return np.empty([0, *sizes[1:]], dtype=numpy_dtype(info.dtype))
