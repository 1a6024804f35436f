"""The job through Beam's portable job service and an external worker pool, as Flink runs it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import DataDirectory
from pipeline.schema import FeatureSchema
from pipeline.synthetic.log import SyntheticLog, write_log

ROOT = Path(__file__).parents[3]
CONFIG = PreprocessConfig(block_bytes=1 << 17, shard_bytes=1 << 18, rows_per_record=256)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def service(module: str, *arguments: str, port: int) -> Iterator[None]:
    """A Beam service in a process group of its own, listening on `port`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert process.poll() is None, f"{module} ended with {process.returncode}"
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
                break
            time.sleep(0.2)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def contents(data: DataDirectory) -> dict[str, str]:
    return {
        str(p.relative_to(data.path)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(data.path.rglob("*"))
        if p.is_file()
    }


def test_a_portable_runner_writes_the_same_bytes(tmp_path: Path) -> None:
    (log,) = write_log(SyntheticLog(6_000, seed=3), tmp_path / "log")
    schema = FeatureSchema.load("synthetic")
    here = preprocess(schema, [str(log)], tmp_path / "here", CONFIG)
    jobs, workers = free_port(), free_port()
    job_service = "apache_beam.runners.portability.local_job_service_main"
    worker_pool = "apache_beam.runners.worker.worker_pool_main"
    with (
        service(job_service, f"--port={jobs}", port=jobs),
        service(worker_pool, f"--service_port={workers}", port=workers),
    ):
        options = [
            "--runner=PortableRunner",
            f"--job_endpoint=localhost:{jobs}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{workers}",
        ]
        there = preprocess(schema, [str(log)], tmp_path / "there", CONFIG, beam_options=options)
    assert len(contents(here)) > 10
    assert contents(there) == contents(here)
