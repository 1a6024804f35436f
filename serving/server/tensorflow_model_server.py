"""Starts the real TF Serving on a directory of models, with the configuration that it needs."""

from __future__ import annotations

import logging
import os
import posixpath
import shutil
import subprocess
from pathlib import Path

from pipeline.errors import ConfigError
from serving.server.tensorflow_config import server_flags, write_server_config
from serving.server.versions import list_models, list_versions

__all__ = ["BINARY", "find_binary", "prepare", "start_process", "stop_process"]

logger = logging.getLogger(__name__)

BINARY = "tensorflow_model_server"
_EVERY_ADDRESS = (None, "0.0.0.0", "::")
_OF_THIS_PROCESS = ("TF_CPP_MIN_LOG_LEVEL", "GRPC_VERBOSITY")  # see pipeline.quiet


def find_binary() -> str | None:
    """The path of `tensorflow_model_server`, or None."""
    return shutil.which(BINARY)


def prepare(
    binary: str,
    models_dir: str,
    config_dir: Path,
    *,
    host: str | None,
    grpc_port: int,
    rest_port: int,
    name: str | None,
) -> list[str]:
    """Writes the configuration to `config_dir`; returns what to execute.

    Raises:
        ConfigError: an address or a port that the server cannot take, or no model with a version.
    """
    if host not in _EVERY_ADDRESS:
        raise ConfigError(
            f"{BINARY} listens on every address of the machine; it has no flag for one",
            host,
            "Leave --host out and close the ports to others outside (firewall, container port on "
            "127.0.0.1), or take the binary off PATH for the development server.",
        )
    if not grpc_port or not rest_port:
        raise ConfigError(
            f"{BINARY} must be given its ports: 0 is 'no such port' there",
            f"gRPC {grpc_port}, REST {rest_port}",
            "Name two free ports.",
        )
    base = models_dir if "://" in models_dir else str(Path(models_dir).absolute())
    models = _models_with_versions(models_dir, name)
    write_server_config(config_dir, models=models, base=base, batching=False)
    flags = server_flags(str(config_dir), grpc_port=grpc_port, rest_port=rest_port, batching=False)
    return [binary, *flags]


def _models_with_versions(models_dir: str, name: str | None) -> list[str]:
    """The models to list: with one that has no version the server never opens its ports."""
    asked = [name] if name is not None else list_models(models_dir)
    found = [model for model in asked if list_versions(posixpath.join(models_dir, model))]
    left_out = sorted(set(asked) - set(found))
    if not found:
        raise ConfigError(
            "TF Serving reads its list of models when it starts and waits for a version of each: "
            "one at least must have one",
            f"{models_dir}: without a version {', '.join(left_out) or 'nothing'}",
            "Publish a model first.",
        )
    if left_out:
        logger.warning(
            "not served, they have no version yet: %s (publish, then start again)",
            ", ".join(left_out),
        )
    return found


def start_process(command: list[str]) -> subprocess.Popen[bytes]:
    """Starts it; its log goes to our standard error, at the level that it has by itself."""
    environment = {k: v for k, v in os.environ.items() if k not in _OF_THIS_PROCESS}
    # Its own session: Ctrl-C reaches this process only, which then ends the child in order.
    return subprocess.Popen(command, start_new_session=True, env=environment)


def stop_process(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Terminates the server; kills it when it is still there after `grace_s`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            logger.warning("%s ignored SIGTERM for %g s; killing it", BINARY, grace_s)
            process.kill()
    process.wait()
