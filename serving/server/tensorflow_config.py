"""The files that TF Serving is started with: batching, monitoring, and the models that it serves.

    models.config.model              --model_config_file
    monitoring.config          --monitoring_config_file
    batching_parameters.txt    --batching_parameters_file, with --enable_batching=true; on request

All are protocol buffers in text form. Batching joins the rows of several callers into one batch, padded
up to the next allowed size. That a score does not depend on the batch is what the parity check `batch,
served` proves of every model here. It is off by default all the same: it joins the callers' errors too,
and models of this size gain by it only where many call at once. docs/tf_serving.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.step_directory import make_writable, write_atomically
from serving.export.batch_sizes import ALLOWED_BATCH_SIZES

__all__ = [
    "BATCHING_FILE",
    "METRICS_PATH",
    "MODELS_FILE",
    "MONITORING_FILE",
    "batching_parameters",
    "models_config",
    "monitoring_config",
    "server_flags",
    "write_server_config",
]

BATCHING_FILE = "batching_parameters.txt"
MODELS_FILE = "models.config"
MONITORING_FILE = "monitoring.config"
METRICS_PATH = "/monitoring/prometheus/metrics"


def batching_parameters(
    *,
    allowed_batch_sizes: Sequence[int] = ALLOWED_BATCH_SIZES,
    batch_timeout_us: int = 0,
    max_enqueued_batches: int = 1000,
    num_batch_threads: int = 4,
) -> str:
    """BatchingParameters (session_bundle_config.proto) as text.

    Args:
        allowed_batch_sizes: rising; the last one is the largest batch, as TF Serving demands.
        batch_timeout_us: how long the first row of a batch waits for others, microseconds. With 0 a
            batch holds what has come while all threads were busy: a score takes some 150, so that
            waiting would cost more than joining saves.
        max_enqueued_batches: above this many waiting batches a request is refused (UNAVAILABLE).
        num_batch_threads: batches that run at once; about the number of cores of the server.

    Raises:
        ConfigError: sizes that are not positive and rising, or a number below its least.
    """
    sizes = list(allowed_batch_sizes)
    if not sizes or sizes[0] < 1 or sizes != sorted(set(sizes)):
        raise ConfigError("allowed batch sizes must be positive and rise", sizes, "Try 1, 2, 4, 8.")
    least = {"num_batch_threads": num_batch_threads, "max_enqueued_batches": max_enqueued_batches}
    for name, value in least.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1", value)
    if batch_timeout_us < 0:
        raise ConfigError("batch_timeout_us must not be negative", batch_timeout_us)
    lines = [
        f"max_batch_size {{ value: {sizes[-1]} }}",
        f"batch_timeout_micros {{ value: {batch_timeout_us} }}",
        f"max_enqueued_batches {{ value: {max_enqueued_batches} }}",
        f"num_batch_threads {{ value: {num_batch_threads} }}",
        *(f"allowed_batch_sizes: {size}" for size in sizes),
    ]
    return "\n".join(lines) + "\n"


def monitoring_config() -> str:
    """MonitoringConfig (monitoring_config.proto) as text: metrics for Prometheus."""
    return f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n'


def models_config(models: Sequence[str], base: str) -> str:
    """ModelServerConfig (model_server_config.proto) as text.

    Args:
        models: their names, at least one.
        base: the directory of models as the server sees it; local or gs://.

    Raises:
        ConfigError: no model.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    if not models:
        raise ConfigError(
            "TF Serving reads its list of models when it starts: there must be one",
            base,
            "Publish a model first, or name one with --name.",
        )
    config = model_server_config_pb2.ModelServerConfig()
    for name in models:
        entry = config.model_config_list.config.add()
        entry.name, entry.model_platform = name, "tensorflow"
        entry.base_path = f"{base.rstrip('/')}/{name}"
    text: str = text_format.MessageToString(config)
    return text


def server_flags(
    out: str, *, grpc_port: int = 8500, rest_port: int = 8501, batching: bool = False
) -> list[str]:
    """What `tensorflow_model_server` is started with, `out` being where the files lie for it."""
    batching_flags = [
        "--enable_batching=true",
        f"--batching_parameters_file={out}/{BATCHING_FILE}",
    ]
    return [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={out}/{MODELS_FILE}",
        f"--monitoring_config_file={out}/{MONITORING_FILE}",
        *(batching_flags if batching else []),
        "--enable_grpc_healthcheck_service=true",  # off by default: probes need it
        "--enable_profiler=false",  # on by default, on the predict port, without authentication
    ]


def write_server_config(
    out: Path,
    *,
    models: Sequence[str],
    base: str,
    batching: bool = False,
    num_batch_threads: int = 4,
) -> list[Path]:
    """Writes the files; returns their paths. A batching file of before goes if it is not asked for.

    Raises:
        ConfigError: no model, or `out` cannot be written.
    """
    contents = {MONITORING_FILE: monitoring_config(), MODELS_FILE: models_config(models, base)}
    if batching:
        contents[BATCHING_FILE] = batching_parameters(num_batch_threads=num_batch_threads)
    make_writable(out)
    for name, content in contents.items():
        write_atomically(out / name, content)
    if not batching:
        (out / BATCHING_FILE).unlink(missing_ok=True)
    return [out / name for name in contents]
