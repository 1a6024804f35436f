"""Runners for tests: no TensorFlow, so that a cell's process takes a second."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from experiments.cell import Cell
from experiments.outcome import CellOutcome, SplitLogits
from pipeline.errors import ConfigError, DataError, DivergedError
from pipeline.records.data_directory import DataDirectory

ROWS = 60


def fake(cell: Cell, data: DataDirectory, work: Path) -> CellOutcome:
    """Does what the section `do` says, and notes in the working directory that it was started."""
    do = dict(cell.sections)
    if "journal" in do:
        with open(do["journal"], "a") as journal:
            journal.write(f"{cell.name} {os.getpid()} {os.environ['TF_NUM_INTRAOP_THREADS']}\n")
    print("a library's line", file=sys.stderr, flush=True)
    if "import" in do:
        __import__(do["import"])
    match do.get("fail"):
        case "diverged":
            raise DivergedError("the training loss must stay finite", "nan at step 7", "Lower it.")
        case "config":
            raise ConfigError("groups must divide units", "groups=3, units=8", "Try groups=4.")
        case "data":
            raise DataError("a data directory must be as preprocess wrote it", "part-0", "Copy it.")
        case "memory":
            raise MemoryError("no room for a table")
        case "bug":
            raise RuntimeError("something broke")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "once" if not (work / "tried").exists():
            (work / "tried").touch()
            raise RuntimeError("the first time")
    if "sleep_s" in do:
        time.sleep(do["sleep_s"])
    logits = np.random.default_rng(cell.seed).normal(-1, 1, ROWS) + do.get("shift", 0.0)
    if do.get("fail") == "nan logits":
        logits[3] = np.nan
    scored = {split: SplitLogits.uncalibrated(logits) for split in cell.splits}
    return CellOutcome(scored, {"epochs": 1}, 100)
