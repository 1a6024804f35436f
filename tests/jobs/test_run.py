"""`clickparity run`: from raw rows to a published version, once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.server_process import served
from models.run_directory import RunDirectory
from pipeline.records.data_directory import DataDirectory
from pipeline.step_directory import exclusive, is_finished
from serving.export.manifest import verify_manifest
from tests.conftest import TinyWork
from tests.jobs.conftest import Outcome, files_below, logits_in_memory

Cli = Callable[..., Outcome]
ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def test_a_run_leaves_what_the_design_says(tiny_work: TinyWork, layer_run, tiny_data) -> None:
    result = tiny_work.result
    assert result["nothing_to_do"] is False
    assert Path(result["run"]) == tiny_work.path / "runs" / result["run_id"]
    assert Path(result["data"]) == tiny_work.path / "data" / tiny_data.fingerprint
    assert result["published"]["version"] == 1
    version = tiny_work.path / "models" / "ctr" / "1"
    assert verify_manifest(version).fingerprint == layer_run.fingerprint
    assert result["published"]["fingerprint"] == layer_run.fingerprint
    proved = files_below(layer_run.path / "export")
    assert files_below(version) == proved
    for name in proved:  # the very bytes that were checked
        assert (version / name).read_bytes() == (layer_run.path / "export" / name).read_bytes()
    made = files_below(layer_run.path)
    assert {"config.yaml", "weights.npz", "metrics.json", "parity.json", "parity.html"} <= made
    assert is_finished(layer_run.path, layer_run.fingerprint)
    # It learned something: the best possible is not far above.
    metrics = layer_run.read_json("metrics.json")["test"]
    assert metrics["truth"]["bayes_auc"] > metrics["auc"] > 0.5
    assert sum(tiny_data.num_rows(s) for s in ("train", "validation", "test")) == 6000


def test_each_thing_is_opened_built_and_loaded_once(tiny_work: TinyWork) -> None:
    # The encode pass, which Beam may run in processes of its own, builds a transform for itself.
    assert tiny_work.made == {"data directory": 1, "transform": 2, "model": 1}


SECOND = """
import json, sys
from jobs.cli import main
code = main(sys.argv[1:])
heavy = [m for m in ("tensorflow", "tf_keras", "apache_beam") if m in sys.modules]
print(json.dumps({"code": code, "heavy": heavy}))
"""


def test_a_second_run_does_nothing_and_says_so(tiny_work: TinyWork) -> None:
    before = {p: p.stat().st_mtime_ns for p in tiny_work.path.rglob("*") if p.is_file()}
    command = [sys.executable, "-c", SECOND, *tiny_work.arguments, "--workdir", tiny_work.path]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    said, report = done.stdout.splitlines()
    assert json.loads(report) == {"code": 0, "heavy": []}
    assert said.startswith("nothing to do: ")
    assert tiny_work.result["run_id"] in said
    assert "version 1" in said
    assert {p: p.stat().st_mtime_ns for p in tiny_work.path.rglob("*") if p.is_file()} == before


def test_a_second_run_as_json(cli: Cli, tiny_work: TinyWork) -> None:
    result = cli(*tiny_work.arguments, "--workdir", tiny_work.path, "--json").result
    assert result == {**json.loads(json.dumps(tiny_work.result)), "nothing_to_do": True}


def test_models_that_were_deleted_are_published_again(
    cli: Cli, tiny_work: TinyWork, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work.path, work)
    shutil.rmtree(work / "models")
    weights = work / "runs" / tiny_work.result["run_id"] / "weights.npz"
    mark = weights.stat().st_mtime_ns
    outcome = cli(*tiny_work.arguments, "--workdir", work, "--json")
    assert outcome.result["nothing_to_do"] is False
    published = outcome.result["published"]["fingerprint"]
    assert verify_manifest(work / "models" / "ctr" / "1").fingerprint == published
    assert "done before" in outcome.err
    assert weights.stat().st_mtime_ns == mark


def test_a_damaged_result_comes_back_as_its_message_says(
    cli: Cli, tiny_work: TinyWork, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work.path, work)
    result = work / "runs" / tiny_work.result["run_id"] / "result.json"
    os.truncate(result, 30)
    again = (*tiny_work.arguments, "--workdir", work)
    cli(*again).refused(2, str(result), "Delete it, then run: clickparity run")
    result.unlink()
    outcome = cli(*again, "--json")
    assert outcome.result["nothing_to_do"] is False
    assert outcome.result["metrics"] == json.loads(json.dumps(tiny_work.result["metrics"]))
    assert sorted(p.name for p in (work / "models" / "ctr").iterdir() if p.name.isdigit()) == ["1"]
    assert cli(*again, "--json").result["nothing_to_do"] is True


def test_one_run_at_a_time(cli: Cli, tiny_work: TinyWork, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with exclusive(work / f".run-{tiny_work.result['run_id']}.lock"):
        outcome = cli(*tiny_work.arguments, "--workdir", work)
        outcome.refused(1, "one process at a time", "Wait for it")
    assert not (work / "data").exists()


@pytest.mark.parametrize("change", ["config", "touched input", "another input"])
def test_whatever_changes_is_another_run(
    change: str, cli: Cli, tiny_work: TinyWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jobs.scheduled_run

    log = tmp_path / "log"
    pattern = Path(tiny_work.arguments[2])
    shutil.copytree(pattern.parent, log)
    seen: list[tuple[str, str]] = []

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    def record(schema: object, inputs: object, data_dir: Path, data_id: str, *_: object) -> object:
        seen.append((data_id, ""))
        return object()

    def remember(data: object, config: object, run_dir: Path, workdir: Path) -> None:
        seen[-1] = (seen[-1][0], run_dir.name)
        stop()

    monkeypatch.setattr(jobs.scheduled_run, "_preprocessed", record)
    monkeypatch.setattr(jobs.scheduled_run, "_trained_and_published", remember)
    settings = tiny_work.arguments[4:]

    def run(*more: str) -> None:
        argv = ["run", "--input", log / "*.csv", "--workdir", tmp_path / "w", "--set", *settings]
        assert cli(*argv, *more).code == 130

    run()
    run()
    assert seen[0] == seen[1]
    first = sorted(log.iterdir())[0]
    if change == "config":
        run("train.seed=1")
        assert (seen[2][0] == seen[0][0], seen[2][1] == seen[0][1]) == (True, False)
        return
    if change == "touched input":
        os.utime(first, ns=(1, 1))
    else:
        shutil.copy(first, log / "one-more.csv")
    run()
    assert seen[2][0] != seen[0][0]
    assert seen[2][1] != seen[0][1]


# ------------------------------------------------------------------------------- real rows


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_real_rows(cli: Cli, sample_data: Path, tmp_path: Path) -> None:
    """The issue's "Done when": run, serve, predict on the first rows of Criteo's 1 TB log."""
    rows = sample_data / "criteo_terabyte_day0_10k" / "day_0.part.txt"
    work = tmp_path / "work"
    command = [sys.executable, "-m", "jobs.cli", "run", "--config", ROOT / "configs/criteo.yaml"]
    command += ["--input", rows, "--workdir", work, "--json"]
    command += ["--set", "model.hidden_units=[32]", "model.embedding_dim=4"]
    # Some thirty clicks in the test split do not tell a model from a constant.
    command += ["gate.require_better_than_constant=false"]
    done = subprocess.run(
        [str(c) for c in command], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["published"]["name"] == "criteo"
    assert max(result["parity"].values()) <= 1e-5
    data = DataDirectory.open(result["data"])
    splits = data.summary["splits"].values()
    assert data.summary["input_rows"] == 10_000
    assert sum(s["rows"] for s in splits) + data.summary["rejected_rows"] == 10_000
    expected = logits_in_memory(RunDirectory.open(result["run"]), data, rows, 500)
    log = tmp_path / "serve.log"
    with served(work / "models", "criteo", log, timeout_s=240) as server:
        argv = ["predict", "--address", server.grpc_address, "--name", "criteo", "--input", rows]
        answer = cli(*argv, "--schema", "criteo", "--rows", "500", "--json").result
    assert answer["rows"] == 500
    np.testing.assert_allclose(answer["logit"], expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.01
