"""`clickparity serve` in a process of its own: for the demo, the tests and the load benchmark."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ClickparityError
from pipeline.python_process import python_command, python_environment

__all__ = ["ServerProcess", "served"]


@dataclasses.dataclass(frozen=True)
class ServerProcess:
    """A server that has a version live.

    Attributes:
        grpc_address, rest_address: host:port.
        process: the server itself.
    """

    grpc_address: str
    rest_address: str
    process: subprocess.Popen[bytes]

    def resident_mb(self) -> float:
        """Its memory now, from Linux's /proc."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


@contextlib.contextmanager
def served(
    models_dir: Path, name: str, log: Path, *, timeout_s: float = 90.0
) -> Iterator[ServerProcess]:
    """Starts a server on free local ports, and ends it (SIGTERM) with the block.

    Args:
        models_dir: what to serve.
        name: the model that must be available before the block begins.
        log: gets all that the server says.
        timeout_s: for that.

    Raises:
        ClickparityError: the server ended, or the model did not become available in time.
    """
    grpc_address, rest_address = (f"127.0.0.1:{_free_port()}" for _ in range(2))
    command = python_command(["-m", "jobs.cli", "serve", "--models", models_dir])
    command += ["--grpc-port", grpc_address.split(":")[1]]
    command += ["--rest-port", rest_address.split(":")[1]]
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, env={**os.environ, **python_environment()}
        )
        server = ServerProcess(grpc_address, rest_address, process)
        try:
            deadline_s = time.monotonic() + timeout_s
            while not _available(rest_address, name):
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise ClickparityError(
                        f"the server must come up within {timeout_s:.0f} s", f"see {log}"
                    )
                time.sleep(0.2)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _available(address: str, name: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        with urllib.request.urlopen(f"http://{address}/v1/models/{name}", timeout=5) as answer:
            status = json.load(answer)["model_version_status"]
        return bool(status[0]["state"] == "AVAILABLE")
    return False
