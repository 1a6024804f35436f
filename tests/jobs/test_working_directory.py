"""A working directory with the user's own packages of our names breaks no process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.server_process import served
from pipeline.python_process import python_environment
from serving.client.client import PredictClient
from tests.conftest import SETTINGS

ROOT = Path(__file__).parents[2]
TWO_WORKERS = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of this test; it is on PYTHONPATH, too, behind this project."""
    for name in ("models", "jobs", "pipeline", "serving", "experiments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), ""]))
    return tmp_path


def clickparity(*arguments: object) -> Any:
    command = [sys.executable, "-m", "clickparity", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.timeout(900)
def test_run_score_and_serve(folder: Path, tiny_log: Path) -> None:
    log = tiny_log / "*.csv"
    run = clickparity("run", "--input", log, "--workdir", "w", "--set", *SETTINGS, *TWO_WORKERS)
    assert run["published"]["version"] == 1
    assert {"export", "replica", "server"} <= set(run["parity"])
    model = folder / "w" / "models" / "ctr"
    scored = clickparity("score", "--model", model, "--input", log, "--out", "scores", *TWO_WORKERS)
    assert scored["scored_rows"] == 6000
    with (
        served(model.parent, "ctr", folder / "server.log") as server,
        PredictClient(server.grpc_address, "ctr") as client,
    ):
        row = {n: [None] for n in client.input_dtypes}
        assert 0 < client.predict(row)["probability"][0] < 1


@pytest.mark.parametrize("here", ["", ".", "{cwd}"])
def test_child_processes_do_not_get_the_working_directory(
    here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = ["/a", here.format(cwd=tmp_path), "/b"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entries))
    environment = python_environment()
    kept = environment["PYTHONPATH"].split(os.pathsep)
    assert kept == [str(ROOT), "/a", "/b"]
    assert environment["PYTHONSAFEPATH"] == "1"
