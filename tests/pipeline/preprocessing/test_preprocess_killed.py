"""SIGKILL at any moment, then a second start: the same bytes, nothing twice, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.errors import ConfigError
from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import DataDirectory
from tests.pipeline.preprocessing.test_preprocessing import (
    CONFIG,
    contents,
    make_schema,
    write_input,
)

ROOT = Path(__file__).parents[3]
# What the staging directory holds when each stage of the job has just begun.
STAGES = [
    "progress",
    "statistics/vocabulary/c.csv",
    "spill/*.rows",
    "train/part-*",
    "parity_sample",
]
TWO_WORKERS = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """(the log, what an unbroken job makes of it)."""
    log = write_input(tmp_path_factory.mktemp("input") / "log.csv")
    data = preprocess(make_schema(), [str(log)], tmp_path_factory.mktemp("out") / "data", CONFIG)
    return log, contents(data.path)


class Jobs:
    """Starts the same job again and again, each time in a process of its own."""

    def __init__(self, starter: subprocess.Popen[str], out: Path) -> None:
        self._starter, self.out = starter, out

    def start(self) -> int:
        """The process id."""
        assert self._starter.stdin is not None
        self._starter.stdin.write("start\n")
        self._starter.stdin.flush()
        return self._answer()

    def status(self) -> int:
        """The exit status of the job that was started last, once it has ended."""
        return self._answer()

    def _answer(self) -> int:
        assert self._starter.stdout is not None
        return int(self._starter.stdout.readline())

    def wait_for(self, stage: str) -> None:
        """Until the job has reached a stage, or is done."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not self.out.exists():
            if next(self.out.parent.glob(f".data.staging-*/{stage}"), None):
                return
            time.sleep(0.002)


@contextlib.contextmanager
def jobs(folder: Path, log: Path, beam_options: list[str]) -> Iterator[Jobs]:
    """Jobs whose temporary files go to `folder`/tmp; at the end no process of theirs is left."""
    (folder / "schema.yaml").write_text(make_schema().to_yaml())
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG.model_dump()))
    (folder / "tmp").mkdir()
    out = folder / "out" / "data"
    command = [sys.executable, str(Path(__file__).with_name("preprocess_process.py"))]
    command += [str(folder / "schema.yaml"), str(log), str(out), str(folder / "config.yaml")]
    mark = f"CLICKPARITY_TEST_JOBS={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    environment = {
        **os.environ,
        name: value,
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TMPDIR": str(folder / "tmp"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    with subprocess.Popen(
        [*command, *beam_options],
        env=environment,
        cwd=folder,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as starter:
        yield Jobs(starter, out)
        assert starter.stdin is not None
        starter.stdin.close()
    # A worker whose job died before it had connected waits 60 s each for Beam's logging and control
    # channels; it holds no file of the job's meanwhile.
    deadline = time.monotonic() + 150
    while left := processes_with(mark.encode()):
        assert time.monotonic() < deadline, f"workers outlive their job: {left}"
        time.sleep(0.2)


def processes_with(mark: bytes) -> list[str]:
    """Command lines of the processes that have `mark` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def kill_and_restart(
    folder: Path,
    log: Path,
    whole: dict[str, str],
    *,
    moments: list[str | float],
    beam_options: list[str],
) -> None:
    """Kills a job at each moment (a stage of STAGES, or a share of its time), then lets it end."""
    rng = random.Random(len(moments))
    with jobs(folder, log, beam_options) as started:
        out, took_s = started.out, 0.0
        if any(isinstance(moment, float) for moment in moments):
            begun = time.monotonic()
            started.start()
            assert started.status() == 0
            took_s = time.monotonic() - begun
            assert contents(out) == whole
            shutil.rmtree(out)
        killed = 0
        for moment in moments:
            child = started.start()
            if isinstance(moment, str):
                started.wait_for(moment)
                time.sleep(rng.random() * 0.05)
            else:
                time.sleep(moment * took_s)
            with contextlib.suppress(ProcessLookupError):  # it has ended already: judged below
                os.kill(child, signal.SIGKILL)
            status = started.status()
            if out.exists():  # it was faster than the kill: then it is whole
                assert contents(out) == whole
                shutil.rmtree(out)
                continue
            killed += 1
            assert status == signal.SIGKILL
            # One staging directory, that of the last start: the earlier ones were cleared away.
            assert len(list(out.parent.glob(".data.staging-*"))) <= 1
            with pytest.raises(ConfigError, match="must be finished"):
                DataDirectory.open(out)
        assert killed >= len(moments) // 2, "too few kills came in time to prove anything"
        started.start()
        assert started.status() == 0
        assert contents(out) == whole
    assert [p.name for p in out.parent.iterdir()] == ["data"]
    # TensorFlow's tracer removes its generated modules at exit, which a killed process never reaches.
    left = [p.name for p in (folder / "tmp").iterdir() if "autograph" not in p.name]
    assert left == []


@pytest.mark.timeout(900)
def test_three_kills(tmp_path: Path, expected: tuple[Path, dict[str, str]]) -> None:
    log, whole = expected
    moments: list[str | float] = [STAGES[1], STAGES[2], STAGES[3]]
    kill_and_restart(tmp_path, log, whole, moments=moments, beam_options=[])


@pytest.mark.timeout(900)
def test_two_kills_of_two_workers(tmp_path: Path, expected: tuple[Path, dict[str, str]]) -> None:
    log, whole = expected
    moments: list[str | float] = [STAGES[0], STAGES[2]]
    kill_and_restart(tmp_path, log, whole, moments=moments, beam_options=TWO_WORKERS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("beam_options", [[], TWO_WORKERS], ids=["one worker", "two workers"])
def test_ten_kills_at_random_moments(
    tmp_path: Path, expected: tuple[Path, dict[str, str]], beam_options: list[str]
) -> None:
    log, whole = expected
    rng = random.Random(len(beam_options))
    moments: list[str | float] = [*STAGES, *(rng.uniform(0, 0.95) for _ in range(5))]
    rng.shuffle(moments)
    kill_and_restart(tmp_path, log, whole, moments=moments, beam_options=beam_options)
