"""One cell in a process of its own: `python -P -m experiments.cell_process CELL.json FOLDER FAILURE.json`.

Exit codes: 0 done (or done before), 2 the config is wrong, 3 the cell failed by itself (FAILURE.json says
why), 143 stopped: the same cell goes on from its checkpoint. It ends when whoever started it does: the
standard input is a pipe that nobody else holds.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cell import Cell, Failure, rows_path
from experiments.outcome import CellOutcome, SplitLogits, metrics_of, plain
from experiments.scores import Rows
from pipeline.errors import ClickparityError, ConfigError, DataError, DivergedError
from pipeline.machine_faults import MachineError
from pipeline.records.data_directory import DataDirectory
from pipeline.step_directory import is_finished, step_directory, write_atomically

__all__ = ["CELL_FAILED", "Runner", "main", "run_cell"]

CELL_FAILED = 3
# (cell, data, a directory to work in, which a killed process leaves for the next) -> what it came to.
Runner = Callable[[Cell, DataDirectory, Path], CellOutcome]


def main(argv: list[str] | None = None) -> int:
    """Runs the cell; returns the exit code."""
    cell_path, folder, failure_path = map(Path, sys.argv[1:] if argv is None else argv)
    _end_with_the_starter()
    cell = Cell.from_json(json.loads(cell_path.read_text()))
    try:
        run_cell(cell, folder)
    except BaseException as error:
        if getattr(error, "exit_code", None) == 143:  # Interrupted: the state is saved
            print(error, file=sys.stderr)
            return 143
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        kind = _kind(error)
        if kind is not Failure.DIVERGED:
            traceback.print_exc()
        _write_failure(failure_path, error, kind)
        return 2 if kind is None else CELL_FAILED
    return 0


def run_cell(cell: Cell, folder: Path) -> None:
    """Trains, scores and writes FOLDER/<identity>, unless that is done.

    Raises:
        ConfigError: the data is not the cell's any more, or the config asks for what cannot be.
        DivergedError, DataError: see `Runner`.
    """
    goal = folder / cell.identity
    if is_finished(goal, cell.identity):
        return
    started_s = time.perf_counter()
    data = DataDirectory.open(cell.data_path)
    if data.fingerprint != cell.data_fingerprint:
        raise ConfigError(
            "a cell is run on the data that it was made for",
            f"{data.path} is {data.fingerprint}, the cell wants {cell.data_fingerprint}",
            "Restore that data directory, or make the cells anew.",
        )
    work = folder / "work" / cell.identity
    with step_directory(goal, cell.identity) as staging:
        work.mkdir(parents=True, exist_ok=True)
        outcome = _runner(cell.runner)(cell, data, work)
        metrics = {}
        for split in cell.splits:
            rows = _shared_rows(folder, data, split)
            metrics[split] = metrics_of(rows, outcome.logits[split])
            _save_logits(staging / f"logits-{split}.npz", outcome.logits[split])
        result = {
            "metrics": metrics,
            "training": outcome.training,
            "cost": {
                "seconds": time.perf_counter() - started_s,
                "cpu_seconds": sum(os.times()[:2]),
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "examples": outcome.examples,
            },
        }
        write_atomically(staging / "cell.json", json.dumps(cell.to_json(), indent=1))
        write_atomically(staging / "result.json", json.dumps(plain(result), indent=1))
    shutil.rmtree(work, ignore_errors=True)


def _runner(name: str) -> Runner:
    """By "module:function", or "FILE.py:function" for one that no package holds."""
    module_name, _, function = name.rpartition(":")
    if module_name.endswith(".py"):
        spec = importlib.util.spec_from_file_location("experiments_runner", module_name)
        if spec is None or spec.loader is None:
            raise ConfigError("a cell's runner must be a Python file", module_name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(module_name)
    runner: Runner = getattr(module, function)
    return runner


def _shared_rows(folder: Path, data: DataDirectory, split: str) -> Rows:
    """The rows of a split, written by whichever cell comes first."""
    path = rows_path(folder, data.fingerprint, split)
    if not path.exists():
        from experiments.data_rows import data_rows

        path.parent.mkdir(parents=True, exist_ok=True)
        data_rows(data, split).save(path)
    return Rows.load(path)


def _save_logits(path: Path, logits: SplitLogits) -> None:
    buffer = io.BytesIO()
    calibrated, raw = (np.asarray(v, np.float32) for v in (logits.calibrated, logits.raw))
    np.savez(buffer, calibrated=calibrated, raw=raw)
    write_atomically(path, buffer.getvalue())


def _kind(error: BaseException) -> Failure | None:
    """What kind of failure it is; None: the config is wrong, and so is every cell like it."""
    if isinstance(error, DivergedError):
        return Failure.DIVERGED
    if isinstance(error, ConfigError):
        return None
    if isinstance(error, DataError):
        return Failure.BAD_DATA
    return Failure.OUT_OF_MEMORY if _lacks_memory(_first_cause(error)) else Failure.CRASHED


def _lacks_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"


def _first_cause(error: BaseException) -> BaseException:
    """What `pipeline.machine_faults` translated, where it did."""
    while isinstance(error, MachineError) and error.__context__ is not None:
        error = error.__context__
    return error


def _write_failure(path: Path, error: BaseException, kind: Failure | None) -> None:
    error = _first_cause(error)
    found: dict[str, Any] = {"kind": kind and kind.value, "reason": str(error).split("\n")[0]}
    if isinstance(error, ClickparityError):
        parts = {"rule": error.rule, "received": error.received, "remedy": error.remedy}
        found |= {key: value and str(value) for key, value in parts.items()}
    else:
        found["reason"] = f"{type(error).__name__}: {found['reason']}"
    write_atomically(path, json.dumps(found))


def _end_with_the_starter() -> None:
    """SIGTERM to ourselves when the pipe of the standard input closes: no orphan goes on training."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
