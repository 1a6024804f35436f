"""Cells as processes: done once, failing alone, stopped with whoever started them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.cell import (
    Cell,
    CellFailure,
    CellResult,
    Failure,
    over_seeds,
    read_failure,
    read_result,
    rows_path,
)
from experiments.comparison import compare
from experiments.scheduler import Budget, run_cells
from experiments.scores import Rows
from pipeline.errors import ConfigError
from pipeline.records.data_directory import DataDirectory

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUNNER = f"{HERE / 'runners.py'}:fake"
ROWS = 60


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    """As much of a data directory as a runner without TensorFlow needs."""
    path = tmp_path / "data"
    path.mkdir()
    split = {"rows": ROWS, "shards": 1, "label_rate": 0.2}
    splits = dict.fromkeys(("train", "validation", "test"), split)
    (path / "summary.json").write_text(json.dumps({"splits": splits}))
    (path / "_SUCCESS").write_text("0123456789abcdef\n")
    return DataDirectory.open(path)


@pytest.fixture
def folder(tmp_path: Path, data: DataDirectory) -> Path:
    """An experiment whose rows have been read already."""
    label = (np.random.default_rng(0).random(ROWS) < 0.3).astype(np.float32)
    for split in ("validation", "test"):
        path = rows_path(tmp_path / "cells", data.fingerprint, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        Rows(label, np.ones(ROWS, np.float32)).save(path)
    return tmp_path / "cells"


def fake(data, name="", seed=0, splits=("test",), **do):
    return Cell.of(data, do, seed, splits=splits, runner=RUNNER, name=name)


def started(journal: Path) -> list[str]:
    return [line.split()[0] for line in journal.read_text().splitlines()]


def silent(line: str) -> None:
    pass


def test_done_cells_are_not_repeated_and_names_are_no_part_of_them(data, folder, tmp_path):
    journal = tmp_path / "journal"
    do = {"journal": str(journal)}
    cells = [fake(data, "one", **do), fake(data, "two", **do), fake(data, "three", seed=1, **do)]
    lines = []
    found = run_cells(cells, folder, say=lines.append)
    assert started(journal) == ["one", "three"]  # two is one under another name
    assert [o.cell.name for o in found] == ["one", "two", "three"]
    assert lines[0] == "2 cells, 0 of them done" and lines[1].startswith("[1/2] one: log loss ")
    assert "left" in lines[1] and "left" not in lines[2]
    run_cells(cells, folder, say=lines.append)
    assert started(journal) == ["one", "three"] and lines[-1] == "2 cells, 2 of them done"
    one, two, three = (o.scores() for o in found)
    assert compare([one], [two]).difference == 0.0 and compare([one], [three]).difference != 0.0
    assert found[0].cost["examples"] == 100 and found[0].cost["peak_mb"] > 1
    assert found[0].metrics["test"]["count"] == ROWS
    assert not list((folder / "work").iterdir()), "what is done needs no place to work"


def test_every_split_that_is_asked_for_is_scored(data, folder):
    (result,) = run_cells([fake(data, splits=("validation", "test"))], folder, say=silent)
    assert set(result.metrics) == {"validation", "test"}
    assert len(result.scores("validation").logits) == ROWS
    with pytest.raises(ConfigError, match=r"train of .*validation, test"):
        result.scores("train")


def test_failures_stay_alone_with_their_kind_and_reason(data, folder):
    kinds = {
        "diverged": (Failure.DIVERGED, "the training loss must stay finite; got nan at step 7"),
        "nan logits": (Failure.DIVERGED, "a model's logits must be finite; got 1 of 60"),
        "data": (Failure.BAD_DATA, "as preprocess wrote it; got part-0"),
        "memory": (Failure.OUT_OF_MEMORY, "MemoryError: no room for a table"),
        "killed": (Failure.OUT_OF_MEMORY, "SIGKILL"),
        "crash": (Failure.CRASHED, "signal SIGSEGV"),
        "bug": (Failure.CRASHED, "RuntimeError: something broke"),
    }
    cells = [fake(data, name, fail=name) for name in kinds] + [fake(data, "good")]
    lines = []
    outcomes = run_cells(cells, folder, Budget(parallel=3), say=lines.append)
    assert isinstance(outcomes[-1], CellResult)
    for outcome, (kind, reason) in zip(outcomes, kinds.values(), strict=False):
        assert isinstance(outcome, CellFailure) and outcome.kind is kind
        assert reason in outcome.reason
        assert read_result(folder, outcome.cell) is None
        assert read_failure(folder, outcome.cell) == outcome
    assert "something broke" in outcomes[6].log and "a library's line" in outcomes[6].log
    assert any("FAILED (diverged)" in line for line in lines) and "failed" in lines[-1]


def test_what_diverged_is_kept_and_what_crashed_is_tried_again(data, folder, tmp_path):
    journal = tmp_path / "journal"
    do = {"journal": str(journal)}
    cells = [fake(data, "nan", fail="diverged", **do), fake(data, "once", fail="once", **do)]
    first = run_cells(cells, folder, say=silent)
    assert [o.kind for o in first] == [Failure.DIVERGED, Failure.CRASHED]
    second = run_cells(cells, folder, say=silent)
    assert second[0].kind is Failure.DIVERGED and isinstance(second[1], CellResult)
    assert started(journal) == ["nan", "once", "once"]
    assert read_failure(folder, cells[1]) is None
    run_cells(cells, folder, say=silent, retry=True)
    assert started(journal) == ["nan", "once", "once", "nan"]


def test_a_wrong_config_stops_all_of_it(data, folder, tmp_path):
    journal = tmp_path / "journal"
    do = {"journal": str(journal)}
    cells = [fake(data, "wrong", fail="config", **do), fake(data, "never", seed=5, **do)]
    with pytest.raises(ConfigError, match=r"groups must divide units; got groups=3, units=8\. Try"):
        run_cells(cells, folder, say=silent)
    assert started(journal) == ["wrong"]


def test_cells_run_side_by_side_and_share_the_cores(data, folder, tmp_path):
    journal = tmp_path / "journal"
    cells = [fake(data, str(i), seed=i, sleep_s=2.0, journal=str(journal)) for i in range(3)]
    started_s = time.monotonic()
    run_cells(cells, folder, Budget(parallel=3, cores=7), say=silent)
    threads = [line.split()[2] for line in journal.read_text().splitlines()]
    assert threads == ["2", "2", "2"]
    assert time.monotonic() - started_s < 3 * 2.0 + 2
    with pytest.raises(ConfigError, match="parallel must be at least 1; got 0"):
        Budget(parallel=0)


DRIVER = """
import json, sys
from pathlib import Path
from experiments.cell import Cell
from experiments.scheduler import Budget, run_cells
cells = [Cell.from_json(raw) for raw in json.loads(sys.argv[1])]
run_cells(cells, Path(sys.argv[2]), Budget(parallel=2))
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_cell_outlives_whoever_started_it(data, folder, tmp_path, number):
    journal = tmp_path / "journal"
    cells = [fake(data, str(i), seed=i, sleep_s=60, journal=str(journal)) for i in range(3)]
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps([c.to_json() for c in cells]), str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline_s = time.monotonic() + 60
    while not journal.exists() or len(journal.read_text().splitlines()) < 2:
        assert time.monotonic() < deadline_s and driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(number)
    _, stderr = driver.communicate(timeout=30)
    pids = [int(line.split()[1]) for line in journal.read_text().splitlines()]
    while any(map(alive, pids)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert len(pids) == 2 and not any(map(alive, pids))
    assert not any((folder / c.identity).exists() for c in cells)
    if number == signal.SIGTERM:
        assert "Interrupted: stopped by SIGTERM with 3 of 3 cells to go" in stderr


def test_folders_of_the_users_shadow_nothing(data, folder, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    for name in ("models", "experiments", "pipeline", "jobs"):
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "__init__.py").write_text("raise SystemError('the user\\'s folder')")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("PYTHONPATH", "")
    (outcome,) = run_cells([fake(data, **{"import": "jobs"})], folder, say=silent)
    assert isinstance(outcome, CellResult), outcome


def test_data_that_changed_is_refused(data, folder):
    cell = fake(data)
    (Path(cell.data_path) / "_SUCCESS").write_text("another\n")
    with pytest.raises(ConfigError, match="is another, the cell wants 0123456789abcdef"):
        run_cells([cell], folder, say=silent)


NETWORK = {"model": {"name": "dcn_v2"}, "train": {"learning_rate": 0.01}}


def test_the_identity_is_what_the_result_depends_on(data):
    cell = Cell.of(data, NETWORK, name="a")
    same = [
        Cell.of(data, NETWORK, name="b"),
        Cell.of(data, {**NETWORK, "calibration": "platt"}),
        Cell.of(data, {**NETWORK, "train": {"learning_rate": 0.01, "epochs": "auto", "seed": 9}}),
        Cell.of(data, {**NETWORK, "train": {"learning_rate": 0.01, "keep_checkpoints": 5}}),
        dataclasses.replace(cell, data_path="/moved"),
    ]
    other = [
        Cell.of(data, NETWORK, seed=1),
        Cell.of(data, NETWORK, share=0.5),
        Cell.of(data, NETWORK, splits=("validation",)),
        Cell.of(data, {**NETWORK, "calibration": {"kind": "none"}}),
        Cell.of(data, {**NETWORK, "train": {"learning_rate": 0.02}}),
        Cell.of(data, {"model": {"name": "dcn"}, "train": {"learning_rate": 0.01}}),
        dataclasses.replace(cell, data_fingerprint="f" * 16),
        dataclasses.replace(cell, runner=RUNNER),
    ]
    assert {c.identity for c in same} == {cell.identity}
    assert len({c.identity for c in [cell, *other]}) == 1 + len(other)
    assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell
    seeds = over_seeds(cell, range(3))
    assert seeds[0] == dataclasses.replace(cell, name="a, seed 0")
    assert [c.sections["train"]["seed"] for c in seeds] == [0, 1, 2]
    assert seeds[1].identity == Cell.of(data, NETWORK, seed=1).identity


@pytest.mark.parametrize(
    "sections, options, message",
    [
        ({"modle": {}}, {}, "has the sections model, train and calibration; got modle"),
        ({"model": {"name": "dcn"}, "train": {"epoch": 2}}, {}, r"train\.epoch\b"),
        ({**NETWORK, "calibration": "spline"}, {}, r"calibration.kind must be one of .*platt"),
        (NETWORK, {"share": 0.0}, "share must lie in"),
        (NETWORK, {"splits": ("tests",)}, "split must be one of train, validation, test"),
        (NETWORK, {"splits": ()}, "scores at least one split"),
    ],
)
def test_a_wrong_cell_is_refused_before_anything_starts(data, sections, options, message):
    with pytest.raises(ConfigError, match=message):
        Cell.of(data, sections, **options)
