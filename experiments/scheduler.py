"""Runs cells that have no result yet, several side by side within the cores, and stops them with itself."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from experiments.cell import Cell, CellFailure, CellResult, Failure, read_failure, read_result
from experiments.cell_process import CELL_FAILED
from pipeline.errors import ConfigError, Interrupted
from pipeline.python_process import python_command, python_environment
from pipeline.sigterm import sigterm_event
from pipeline.step_directory import make_writable, write_atomically

__all__ = ["Budget", "Outcome", "run_cells"]

Outcome = CellResult | CellFailure
_LOOK_EVERY_S = 0.05
_GRACE_S = 60.0  # for writing a checkpoint
_LOG_TAIL = 2000


@dataclasses.dataclass(frozen=True)
class Budget:
    """What cells may take of the machine.

    Attributes:
        parallel: cells at a time, at least 1.
        cores: that they share; None: all that this process may use.
    """

    parallel: int = 1
    cores: int | None = None

    def __post_init__(self) -> None:
        for name in ("parallel", "cores"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1", value, "Leave it out, or set 1.")

    @property
    def threads(self) -> int:
        """Of each cell."""
        cores = self.cores or len(os.sched_getaffinity(0))
        return max(1, cores // self.parallel)

    def environment(self) -> dict[str, str]:
        """Variables of a cell's process; what the user has set stays."""
        names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
        limits = dict.fromkeys((*names, "OPENBLAS_NUM_THREADS"), str(self.threads))
        # Waiting threads that spin would burn the processor time of whatever else runs.
        limits |= {"OMP_WAIT_POLICY": "passive", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        return {**limits, **os.environ, **python_environment()}


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    budget: Budget | None = None,
    *,
    say: Callable[[str], None] | None = None,
    retry: bool = False,
) -> list[Outcome]:
    """Runs every cell that is not done, in order; one that fails, fails alone.

    A cell that was killed on the way goes on from its checkpoint; what diverged before is not tried again.

    Args:
        cells: two of one identity are run once.
        folder: see `experiments.cell`.
        budget: one cell at a time on all cores, when left out.
        say: gets a line a cell; stderr when left out.
        retry: also what has diverged before.

    Returns:
        What each came to, in the order of `cells`.

    Raises:
        ConfigError: a cell's config is wrong; the others were stopped.
        Interrupted: on SIGTERM, after the cells have saved their states.
    """
    say = say or _to_stderr
    make_writable(folder)
    unique = _unique(cells)
    missing = [
        cell
        for cell in unique
        if read_result(folder, cell) is None and (retry or not _lasting(folder, cell))
    ]
    say(f"{len(unique)} cells, {len(unique) - len(missing)} of them done")
    failures = _Schedule(missing, folder, budget or Budget(), say).run()
    outcomes: list[Outcome] = []
    for cell in cells:
        result = read_result(folder, cell)
        failure = failures.get(cell.identity) or read_failure(folder, cell)
        found: Outcome | None = result or failure
        if found is None:
            found = CellFailure(cell, Failure.CRASHED, "its result is not there any more")
        outcomes.append(dataclasses.replace(found, cell=cell))
    return outcomes


def _unique(cells: Sequence[Cell]) -> list[Cell]:
    """The first of each identity, in order."""
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.identity, cell)
    return list(first.values())


def _lasting(folder: Path, cell: Cell) -> bool:
    failure = read_failure(folder, cell)
    return failure is not None and failure.is_lasting


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class _Running:
    cell: Cell
    work: Path
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    started_s: float


class _Schedule:
    """One pass over the cells that are missing."""

    def __init__(
        self, cells: Sequence[Cell], folder: Path, budget: Budget, say: Callable[[str], None]
    ) -> None:
        self._waiting = list(cells)
        self._total = len(cells)
        self._folder, self._budget, self._say = folder, budget, say
        self._running: list[_Running] = []
        self._seconds: list[float] = []
        self._failures: dict[str, CellFailure] = {}

    def run(self) -> dict[str, CellFailure]:
        """Until nothing is left; the failures by identity."""
        with sigterm_event() as terminated:
            try:
                while self._waiting or self._running:
                    while self._waiting and len(self._running) < self._budget.parallel:
                        self._running.append(self._start(self._waiting.pop(0)))
                    for one in [r for r in self._running if r.process.poll() is not None]:
                        self._running.remove(one)
                        self._ended(one)
                    if terminated.wait(_LOOK_EVERY_S):
                        raise Interrupted(
                            f"stopped by SIGTERM with {len(self._waiting) + len(self._running)} of "
                            f"{self._total} cells to go; run the same command to continue"
                        )
            finally:
                self._stop()
        return self._failures

    def _start(self, cell: Cell) -> _Running:
        work = self._folder / "work" / cell.identity
        work.mkdir(parents=True, exist_ok=True)
        write_atomically(work / "cell.json", json.dumps(cell.to_json(), indent=1))
        (work / "failure.json").unlink(missing_ok=True)
        paths = (work / "cell.json", self._folder, work / "failure.json")
        log = open(work / "log.txt", "wb")  # noqa: SIM115 - closed when the process has ended
        process = subprocess.Popen(
            python_command(["-m", "experiments.cell_process", *(p.absolute() for p in paths)]),
            stdin=subprocess.PIPE,  # closed by our end, however we end: the cell ends with us
            stdout=log,
            stderr=log,
            env=self._budget.environment(),
            start_new_session=True,  # a terminal's SIGINT is ours to hand on, as a SIGTERM
        )
        return _Running(cell, work, process, log, time.monotonic())

    def _ended(self, one: _Running) -> None:
        one.log.close()
        if one.process.stdin is not None:
            one.process.stdin.close()
        seconds = time.monotonic() - one.started_s
        self._seconds.append(seconds)
        result = read_result(self._folder, one.cell)
        where = self._folder / "failed" / f"{one.cell.identity}.json"
        done = self._total - len(self._waiting) - len(self._running)
        if result is not None:
            where.unlink(missing_ok=True)
            metrics = result.metrics[one.cell.splits[0]]
            text = f"log loss {metrics['log_loss']:.5f}, {result.cost['peak_mb']:,.0f} MB"
        else:
            failure = _failure(one)
            self._failures[one.cell.identity] = failure
            where.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(where, json.dumps(failure.to_json(), indent=1))
            text = f"FAILED ({failure.kind.value}): {failure.reason}"
        failed = f", {len(self._failures)} failed" if self._failures else ""
        self._say(
            f"[{done}/{self._total}] {one.cell.title}: {text}, {seconds:.0f} s{failed}{self._left()}"
        )

    def _left(self) -> str:
        count = len(self._waiting) + len(self._running)
        if not count:
            return ""
        seconds = sum(self._seconds) / len(self._seconds) * count / self._budget.parallel
        left = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        return f"; about {left} left"

    def _stop(self) -> None:
        """SIGTERM to what still runs, and time to save its state; then SIGKILL."""
        for one in self._running:
            with contextlib.suppress(ProcessLookupError):
                one.process.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + _GRACE_S
        for one in self._running:
            try:
                one.process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            one.log.close()
            if one.process.stdin is not None:
                one.process.stdin.close()


def _failure(one: _Running) -> CellFailure:
    """Why a process left no result.

    Raises:
        ConfigError: what it says of its config.
    """
    code = one.process.returncode
    log = (one.work / "log.txt").read_text(errors="replace")[-_LOG_TAIL:]
    path = one.work / "failure.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found["kind"] is None:
            raise ConfigError(found["rule"], found.get("received"), found.get("remedy") or "")
        if code == CELL_FAILED:
            return CellFailure(one.cell, Failure(found["kind"]), found["reason"], log)
    if code == -signal.SIGKILL:
        reason = "the system killed it (SIGKILL), as it does for want of memory"
        return CellFailure(one.cell, Failure.OUT_OF_MEMORY, reason, log)
    reason = f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
    lines = [line for line in log.splitlines() if line.strip()]
    return CellFailure(
        one.cell, Failure.CRASHED, f"{reason}: {lines[-1][:300]}" if lines else reason, log
    )
