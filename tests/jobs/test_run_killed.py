"""`clickparity run` killed with SIGKILL comes to the same in the end; nobody ever sees a broken version."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.export.manifest import verify_manifest
from tests.conftest import TinyWork

KILLER = Path(__file__).with_name("run_killer.py")
ROOT = Path(__file__).parents[2]
# Lines on stderr that cut a run into stretches, and how long (s) a stretch may take on a fast machine.
STRETCHES = (
    ("[1/5] preprocess ->", 1.0),
    ("statistics", 1.5),
    ("encode", 1.5),
    ("[2/5] train", 4.0),
    ("epoch 1", 1.0),
    ("[3/5] evaluate", 0.5),
    ("building the export", 4.0),
    ("checking parity: transform", 4.0),
    ("checking parity: server", 1.5),
    ("[5/5] export and publish", 4.0),
)


def environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def kill_and_finish(
    tiny_work: TinyWork, scratch: Path, moments: list[tuple[str, float]], *, fast: bool
) -> Any:
    work = scratch / "work"
    plan = {
        "argv": [*tiny_work.arguments, "--workdir", str(work)],
        "models": str(work / "models" / "ctr"),
        "moments": moments,
        "fast": fast,
    }
    (scratch / "plan.json").write_text(json.dumps(plan))
    done = subprocess.run(
        [sys.executable, str(KILLER), str(scratch / "plan.json")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    logs = "\n".join(p.read_text() for p in sorted(scratch.glob("start-*.log"))[-2:])
    assert done.returncode == 0, done.stderr[-3000:] + logs
    report = json.loads(done.stdout)
    assert report["outcomes"][-1] == 0, (moments, report, logs[-3000:])
    assert set(report["outcomes"][:-1]) <= {"killed", 0}, (moments, report)
    assert report["broken"] == [], (moments, report)
    return report


def assert_same_result(tiny_work: TinyWork, work: Path, moments: object) -> None:
    unbroken = tiny_work.path
    run_id = tiny_work.result["run_id"]
    assert os.listdir(work / "runs") == [run_id], moments
    names = ["weights.npz", "metrics.json", "calibration.json", "spec.json", "_SUCCESS"]
    for name in names:
        expected = (tiny_work.run_path / name).read_bytes()
        assert (work / "runs" / run_id / name).read_bytes() == expected, (name, moments)
    before, after = unbroken / "data", work / "data"
    files = {str(p.relative_to(before)) for p in before.rglob("*") if p.is_file()}
    assert {str(p.relative_to(after)) for p in after.rglob("*") if p.is_file()} == files, moments
    assert any(name.endswith(".tfrecord") for name in files)
    for name in files:
        assert (after / name).read_bytes() == (before / name).read_bytes(), (name, moments)
    model = work / "models" / "ctr"
    assert [n for n in os.listdir(model) if n.isdigit()] == ["1"], moments
    published = tiny_work.result["published"]["fingerprint"]
    assert verify_manifest(model / "1").fingerprint == published
    leftovers = [
        str(p.relative_to(work))
        for p in work.rglob("*")
        if any(mark in p.name for mark in (".staging", ".tmp", ".old", ".lock"))
        and p.name != ".publish.lock"
    ]
    assert leftovers == [], moments


def random_moments(rng: random.Random, stretches: list[int]) -> list[tuple[str, float]]:
    return [(STRETCHES[i][0], rng.uniform(0, STRETCHES[i][1])) for i in stretches]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1])
def test_three_kills_change_nothing(seed: int, tiny_work: TinyWork, tmp_path: Path) -> None:
    rng = random.Random(seed)
    # One in each third of the run: data, training, export.
    stretches = [rng.randrange(0, 3), rng.randrange(3, 6), rng.randrange(6, len(STRETCHES))]
    moments = random_moments(rng, stretches)
    report = kill_and_finish(tiny_work, tmp_path, moments, fast=True)
    assert report["outcomes"].count("killed") >= 2, (moments, report)
    assert_same_result(tiny_work, tmp_path / "work", moments)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
def test_ten_kills_change_nothing(seed: int, tiny_work: TinyWork, tmp_path: Path) -> None:
    rng = random.Random(100 + seed)
    # Eight at any time after a start (data and training get done on the way, the export is started
    # over each time), two while it publishes: its last look alone takes longer than 2 s.
    moments = [("", rng.uniform(0, 10)) for _ in range(8)]
    moments += [("[5/5] export and publish", rng.uniform(0, 2)) for _ in range(2)]
    report = kill_and_finish(tiny_work, tmp_path, moments, fast=False)
    assert report["outcomes"].count("killed") == 10, (moments, report)
    assert_same_result(tiny_work, tmp_path / "work", moments)
