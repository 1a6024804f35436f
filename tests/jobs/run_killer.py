"""Kills `clickparity run` at random moments and starts it again, until it finishes.

    python run_killer.py PLAN.json

PLAN: argv (of `jobs.cli.main`), models (MODELS/NAME), fast (leave the replica check out), moments:
[[text, seconds], ...]. Each start is a fork of this process, which has imported TensorFlow and Beam
but used neither, so that a start costs no imports. It is killed (SIGKILL, its whole process group) so
many seconds after `text` first appears on its stderr. The last start is left alone. All the while
every version that a server would see is verified against its manifest. Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from jobs.cli import main as clickparity
from pipeline.errors import GateError
from serving.export.manifest import verify_manifest
from tests.conftest import without_replica_check

# What a run imports, once for all starts.
_IMPORTED_ONCE = (
    "jobs.beam_options",
    "jobs.show.progress",
    "jobs.scheduled_run",
    "jobs.steps",
    "models.calibration",
    "models.metrics",
    "models.zoo",
    "models.training.trainer",
    "pipeline.preprocessing.job",
    "serving.export.build",
    "serving.parity.checks",
    "serving.parity.replica",
    "serving.parity.server_check",
    "serving.parity.suite",
    "serving.repository.version_check",
)
_START_LIMIT_S = 600.0


class Watcher:
    """Verifies every version directory that appears."""

    def __init__(self, model: Path) -> None:
        self._model, self._seen = model, set[str]()
        self.looks, self.broken = 0, list[str]()

    def look(self, again: bool = False) -> None:
        """Verifies the versions not seen yet; with `again`, all."""
        self.looks += 1
        try:
            names = [n for n in os.listdir(self._model) if n.isdigit()]
        except FileNotFoundError:
            return
        for name in names:
            if again or name not in self._seen:
                self._seen.add(name)
                try:
                    verify_manifest(self._model / name)
                except (GateError, OSError) as error:
                    self.broken.append(f"{name}: {error}")


def start(argv: list[str], log: Path) -> int:
    """Forks a start; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        with open(log, "wb") as stream:
            os.dup2(stream.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = clickparity(argv)
    finally:
        os._exit(status)


def wait(pid: int, watcher: Watcher, log: Path, moment: tuple[str, float] | None) -> str | int:
    """Waits for the end of a start, or for the moment to kill it: "killed" or its exit code."""
    deadline, kill_at = time.monotonic() + _START_LIMIT_S, None
    while True:
        watcher.look()
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        if moment and kill_at is None and log.exists() and moment[0].encode() in log.read_bytes():
            kill_at = now + moment[1]
        if now > deadline or (kill_at is not None and now >= kill_at):
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "killed" if now <= deadline else "too slow"
        time.sleep(0.02)


def main(plan_path: str) -> None:
    """Carries out the plan."""
    for module in _IMPORTED_ONCE:
        importlib.import_module(module)
    plan = json.loads(Path(plan_path).read_text())
    watcher = Watcher(Path(plan["models"]))
    left_out = without_replica_check() if plan.get("fast", True) else contextlib.nullcontext()
    outcomes: list[str | int] = []
    with left_out:
        for i, moment in enumerate([*map(tuple, plan["moments"]), None]):
            log = Path(plan_path).with_name(f"start-{i}.log")
            outcomes.append(wait(start(plan["argv"], log), watcher, log, moment))
            watcher.look(again=True)
    report = {"outcomes": outcomes, "broken": watcher.broken, "looks": watcher.looks}
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
