"""A server for development that speaks TF Serving's gRPC and REST.

`serve` starts the real `tensorflow_model_server` when that is on PATH. Otherwise it runs the
embedded server: the same calls on the same protos, the same JSON, the same statuses and messages,
the same policy for versions (see serving.server.repository_watch). The embedded one is for
development: Python threads, no batching across callers, no authentication, no TLS.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import tensorflow as tf

from pipeline.errors import ClickparityError, ConfigError
from serving.server import tensorflow_model_server
from serving.server.grpc_service import GrpcService
from serving.server.http_server import HttpServer
from serving.server.metrics import METRICS_PATH, ServerMetrics
from serving.server.prediction_api import PredictionApi
from serving.server.repository_watch import WatchedModels
from serving.server.rest_api import RestApi

__all__ = ["DEFAULT_MAX_REQUEST_BYTES", "LocalServer", "serve"]

logger = logging.getLogger(__name__)

DEFAULT_MAX_REQUEST_BYTES = 64 * 1024 * 1024

_NOTICE = "clickparity's embedded server is for development; use TF Serving in production."


class LocalServer:
    """The embedded server, as a context manager: starts on entry, drains and stops on exit.

    On entry the latest version of every model is loaded and warmed up before the ports answer. A
    version that fails to load is logged and reported by GetModelStatus; it does not stop the server.

    Args:
        models_dir: MODELS_DIR/NAME/<integer>/saved_model.pb; local or gs://. It may still be empty.
        grpc_port: 0 takes a free one.
        rest_port: 0 takes a free one.
        host: the address to listen on.
        name: serve only this model; None serves every one in the directory.
        poll_interval_s: how often MODELS_DIR is looked at.
        max_load_retries: attempts after a version's first failed one.
        load_retry_interval_s: between these attempts.
        max_request_bytes: larger requests are refused: REST 413, gRPC RESOURCE_EXHAUSTED.
        num_threads: gRPC requests that run at once.
        shutdown_grace_s: how long requests may still run when the server stops.

    Raises:
        ConfigError: on entry: no such directory, or an address that cannot be bound.
    """

    def __init__(
        self,
        models_dir: str | Path,
        grpc_port: int = 0,
        rest_port: int = 0,
        *,
        host: str = "127.0.0.1",
        name: str | None = None,
        poll_interval_s: float = 1.0,
        max_load_retries: int = 5,
        load_retry_interval_s: float = 60.0,
        max_request_bytes: int = DEFAULT_MAX_REQUEST_BYTES,
        num_threads: int = 16,
        shutdown_grace_s: float = 30.0,
    ) -> None:
        self._models_dir, self._host, self._name = str(models_dir), host, name
        self._ports = (grpc_port, rest_port)
        self._max_request_bytes, self._num_threads = max_request_bytes, num_threads
        self._shutdown_grace_s = shutdown_grace_s
        self.metrics = ServerMetrics()
        self.repository = WatchedModels(
            self._models_dir,
            self.metrics,
            name=name,
            poll_interval_s=poll_interval_s,
            max_load_retries=max_load_retries,
            load_retry_interval_s=load_retry_interval_s,
        )
        self._grpc: GrpcService | None = None
        self._http: HttpServer | None = None

    @property
    def grpc_address(self) -> str:
        """Where the gRPC services answer: "host:port"."""
        return self._address(self._grpc)

    @property
    def rest_address(self) -> str:
        """Where the REST API answers: "host:port"."""
        return self._address(self._http)

    def _address(self, service: GrpcService | HttpServer | None) -> str:
        if service is None:
            raise ClickparityError(
                "the server must be started to have an address", self._models_dir
            )
        return f"{self._host}:{service.port}"

    def __enter__(self) -> LocalServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Binds the ports, loads the models, answers.

        Raises:
            ConfigError: no such directory, or an address that cannot be bound.
        """
        _check_models_dir(self._models_dir)
        api = PredictionApi(self.repository)
        grpc_port, rest_port = self._ports
        limit = self._max_request_bytes
        with _bind_errors(f"gRPC address {self._host}:{grpc_port}"):
            self._grpc = GrpcService(
                api,
                self.metrics,
                f"{self._host}:{grpc_port}",
                max_request_bytes=limit,
                num_threads=self._num_threads,
            )
        try:
            with _bind_errors(f"REST address {self._host}:{rest_port}"):
                rest = RestApi(api, self.metrics)
                self._http = HttpServer(rest, self._host, rest_port, max_request_bytes=limit)
        except ConfigError:
            self._grpc.stop(grace_s=0)
            raise
        try:
            self.repository.start()
        except BaseException:  # an unreadable directory; do not keep the ports
            self._grpc.stop(grace_s=0)
            self._http.stop(grace_s=0)
            raise
        self._grpc.start()
        self._http.start()
        logger.warning(_NOTICE)
        logger.info(
            "serving %s from %s: gRPC on %s, REST on http://%s/v1/models, metrics at %s",
            *(self.repository.live_versions() or "no model yet", self._models_dir),
            *(self.grpc_address, self.rest_address, METRICS_PATH),
        )

    def stop(self) -> None:
        """Takes no new request, answers those it has taken (within the grace), then unloads."""
        if self._http is not None:
            self._http.stop(self._shutdown_grace_s)
        if self._grpc is not None:
            self._grpc.stop(self._shutdown_grace_s)
        self.repository.stop()
        logger.info("stopped")

    def wait_until_available(
        self, name: str, version: int | None = None, timeout_s: float = 60.0
    ) -> int:
        """Blocks until `version` (None: any) of a model answers; returns the version.

        Raises:
            ClickparityError: it does not in time; the message has the failure if there is one.
        """
        try:
            return self.repository.wait_until_available(name, version, timeout_s)
        except TimeoutError as error:
            raise ClickparityError("a published version must load", error) from None


def serve(
    models_dir: str | Path,
    grpc_port: int = 8500,
    rest_port: int = 8501,
    *,
    host: str | None = None,
    name: str | None = None,
    shutdown_grace_s: float = 30.0,
) -> None:
    """Serves MODELS_DIR until SIGTERM or SIGINT: by TF Serving when it is on PATH, else embedded.

    Args:
        models_dir: MODELS_DIR/NAME/<integer>/saved_model.pb.
        grpc_port: for PredictionService and ModelService.
        rest_port: for /v1/models.
        host: the address to listen on; None: 127.0.0.1, and all of them for the real server, which
            cannot be given one.
        name: serve only this model.
        shutdown_grace_s: how long requests may still run when the server stops.

    Raises:
        ConfigError: no such directory, a port in use, or a host that the real server cannot take.
        ClickparityError: the real server ended by itself.
    """
    _check_models_dir(str(models_dir))
    binary = tensorflow_model_server.find_binary()
    with _termination() as stopped:
        if binary is not None:
            logger.info("%s found: starting it instead of the embedded server", binary)
            with tempfile.TemporaryDirectory(prefix="clickparity-serve-") as config_dir:
                command = tensorflow_model_server.prepare(
                    binary,
                    str(models_dir),
                    Path(config_dir),
                    host=host,
                    grpc_port=grpc_port,
                    rest_port=rest_port,
                    name=name,
                )
                _serve_real(command, stopped, shutdown_grace_s)
            return
        logger.info("no %s on PATH: embedded server", tensorflow_model_server.BINARY)
        with LocalServer(
            models_dir,
            grpc_port,
            rest_port,
            host=host or "127.0.0.1",
            name=name,
            shutdown_grace_s=shutdown_grace_s,
        ):
            while not stopped.wait(0.2):
                pass
            logger.info("stop requested: finishing the requests that run")


def _serve_real(command: list[str], stopped: _StopSignal, grace_s: float) -> None:
    process = tensorflow_model_server.start_process(command)
    try:
        while not stopped.wait(0.2):
            if process.poll() is not None:
                raise ClickparityError(
                    f"{tensorflow_model_server.BINARY} must keep running",
                    f"exit code {process.returncode}",
                    "Its own log, above, has the reason.",
                )
    finally:
        tensorflow_model_server.stop_process(process, grace_s)


class _StopSignal:
    """What a signal handler may set and the main thread waits for.

    A pipe, because the handler runs inside the waiting main thread: threading.Event takes a lock
    to be set, which that thread may hold.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def set(self) -> None:
        os.write(self._write, b"x")

    def wait(self, timeout_s: float) -> bool:
        """Whether the signal came; the main thread must call this again and again.

        The kernel may deliver a signal to one of TensorFlow's or gRPC's threads, and then nothing
        interrupts the main thread, in which alone Python runs its handlers.
        """
        return bool(select.select([self._read], [], [], timeout_s)[0])

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@contextmanager
def _termination() -> Iterator[_StopSignal]:
    """A signal that SIGTERM and SIGINT give; a second one ends the process as usual."""
    stopped = _StopSignal()
    previous: dict[signal.Signals, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()
        for each, handler in previous.items():
            signal.signal(each, handler)

    try:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for each in (signal.SIGTERM, signal.SIGINT):
                previous[each] = signal.signal(each, stop)
        yield stopped
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
        stopped.close()


@contextmanager
def _bind_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"the {what} must be free and this machine's own", error, "Choose another port or host."
        ) from None


def _check_models_dir(models_dir: str) -> None:
    if not tf.io.gfile.isdir(models_dir):
        raise ConfigError(
            "the models directory must exist",
            models_dir,
            "Publish a model there first, or create the directory.",
        )
