"""Starts the real TF Serving on a directory of models, with the configuration that it needs."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.server.metrics import METRICS_PATH
from serving.server.versions import list_models

__all__ = ["BINARY", "command_line", "find_binary", "model_config", "stop_process"]

logger = logging.getLogger(__name__)

BINARY = "tensorflow_model_server"


def find_binary() -> str | None:
    """The path of `tensorflow_model_server`, or None."""
    return shutil.which(BINARY)


def model_config(models_dir: str, name: str | None) -> str:
    """The --model_config_file for MODELS_DIR: one entry a model, or only `name`."""
    base = models_dir if "://" in models_dir else str(Path(models_dir).absolute())
    config = model_server_config_pb2.ModelServerConfig()
    for model in [name] if name is not None else list_models(models_dir):
        config.model_config_list.config.add(
            name=model, base_path=f"{base.rstrip('/')}/{model}", model_platform="tensorflow"
        )
    return text_format.MessageToString(config)


def command_line(
    binary: str,
    models_dir: str,
    config_dir: Path,
    *,
    grpc_port: int,
    rest_port: int,
    name: str | None,
) -> list[str]:
    """Writes the model and the monitoring config to `config_dir`; returns what to execute."""
    model_file, monitoring_file = config_dir / "models.config", config_dir / "monitoring.config"
    model_file.write_text(model_config(models_dir, name))
    monitoring_file.write_text(f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n')
    return [
        binary,
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={model_file}",
        f"--monitoring_config_file={monitoring_file}",
        "--enable_profiler=false",  # on by default, on the predict port, without authentication
    ]


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
