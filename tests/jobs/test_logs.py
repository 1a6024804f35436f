"""What a real process of the command line writes to stderr."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.logs import LogFormat, logging_to_stderr
from tests.conftest import SETTINGS, TinyWork
from tests.damage import flip_a_bit

ROOT = Path(__file__).parents[2]
CPP_LINE = re.compile(r"WARNING: All log messages before absl|[IWE]\d{4} ")  # TensorFlow's own code


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "clickparity", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/nowhere"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def lines_until(process: subprocess.Popen[str], *phrases: str) -> list[str]:
    """The lines of stderr up to one that holds every phrase."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if all(phrase in line for phrase in phrases):
            return lines
    raise AssertionError("".join(lines))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_serve_says_where_it_listens_what_it_loads_and_what_fails(
    log_format: LogFormat, tiny_work: TinyWork, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(tiny_work.path / "models", models)
    ports = ["--grpc-port", 0, "--rest-port", 0, "--log-format", log_format]
    process = start("serve", "--models", models, *ports)
    try:
        lines = lines_until(process, "gRPC on 127.0.0.1:", "REST on http://127.0.0.1:")
        assert any("loaded model ctr version 1" in line for line in lines)
        beside = tmp_path / "version"
        beside.mkdir()
        (beside / "saved_model.pb").write_bytes(b"no graph")
        beside.rename(models / "ctr" / "9")  # whole when the poller first sees it
        lines += lines_until(process, "ctr version 9")
        process.send_signal(signal.SIGTERM)
        lines += lines_until(process, "stopped")
    finally:
        process.kill()
        process.wait()
    if log_format == "json":
        records = [json.loads(line) for line in lines if not CPP_LINE.match(line)]
        assert all({"time", "level", "logger", "message"} <= set(record) for record in records)
        (failed,) = [r for r in records if "ctr version 9" in r["message"]]
        assert failed["level"] == "WARNING"
        assert failed["logger"].startswith("serving.server.")


def test_a_checkpoint_that_is_skipped_is_named(
    tiny_data, layer_run, copy_of: Callable, tmp_path: Path
) -> None:
    run = copy_of(layer_run)
    for name in ("weights.npz", "training.json"):
        (run.path / name).unlink()
    newest = max(run.checkpoints.iterdir())
    flip_a_bit(max(newest.rglob("*"), key=lambda path: path.stat().st_size))
    process = start("train", "--data", tiny_data.path, "--out", run.path, "--set", *SETTINGS)
    _, said = process.communicate(timeout=250)
    assert process.returncode == 0, said
    assert f"{newest.name} is corrupt" in said


@pytest.mark.parametrize("verbose", [False, True])
def test_lines_of_the_libraries_are_shown_only_if_asked_for(
    verbose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with logging_to_stderr(verbose=verbose):
        logging.getLogger("serving.server").info("ours")
        logging.getLogger("servingx").warning("another's")
        logging.getLogger("tensorflow").error("another's")
        logging.warning("of the root logger")
    assert stream.getvalue().splitlines() == ["ours"] + verbose * [
        "another's", "another's", "of the root logger",
    ]  # fmt: skip


def test_json_holds_prints_and_tracebacks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with logging_to_stderr(log_format="json"):
        print("a\nb", file=sys.stderr)
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("jobs").exception("failed")
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(r["level"], r["message"]) for r in records] == [
        ("INFO", "a"), ("INFO", "b"), ("ERROR", "failed"),
    ]  # fmt: skip
    assert "ValueError: why" in records[2]["exception"]
    assert sys.stderr is stream
