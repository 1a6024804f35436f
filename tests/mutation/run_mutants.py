"""Runs a room's tests against its mutants, each in a process forked from one that is warm.

Why not mutmut or cosmic-ray: a process that starts anew for each mutant spends 8 s on importing
TensorFlow, 50 minutes for 400 mutants before a test has run; and mutmut's way around that (every
mutant of a function in one file, chosen by a wrapper) skips decorated functions and constants of
modules and classes, and forks after tests have started TensorFlow's threads, which then hang.

Here a first child runs the unchanged tests and notes what they import and which of them run which
line. The parent then imports the same libraries, but nothing of ours, and never runs a TensorFlow
operation. A mutant is written into a copy of the tree before its child imports ours from there, so
that processes which tests start see it too. The tests that run the changed line go first, quickest
before the others, and what survives them meets the rest of the room's tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue

from tests.mutation.coverage_plugin import LinesOfTests
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.rooms import Room

__all__ = ["Outcome", "RoomResult", "run_room", "sampled"]

_ROOT = Path(__file__).resolve().parents[2]
_PASSED, _FAILED, _TIMED_OUT = 0, 1, -1
_LEAST_TIMEOUT_S, _SLOWER = 60.0, 6.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one mutant.

    Attributes:
        path: of the source that it changes.
        mutant: the change.
        killed: whether a test failed, or hung.
        seconds: how long that took.
    """

    path: str
    mutant: Mutant
    killed: bool
    seconds: float

    @property
    def key(self) -> tuple[str, str, str, str]:
        """(path, place, before, after): as `equivalent.yaml` names it."""
        return self.path, self.mutant.place, self.mutant.before, self.mutant.after


@dataclasses.dataclass(frozen=True)
class RoomResult:
    """All outcomes of one room.

    Attributes:
        possible: mutants that the room has.
        outcomes: of those that were run.
        seconds: wall clock, with the run of the unchanged tests.
    """

    possible: int
    outcomes: tuple[Outcome, ...]
    seconds: float


def sampled(
    root: Path, room: Room, count: int | None, seed: int
) -> tuple[int, list[tuple[str, Mutant]]]:
    """(all mutants of a room, those to run with their source's path): a seed gives one sample."""
    everything = [
        (path, mutant)
        for path in room.source_files(root)
        for mutant in mutants_of((root / path).read_text())
    ]
    if count is None or count >= len(everything):
        return len(everything), everything
    chosen = sorted(random.Random(seed).sample(range(len(everything)), count))
    return len(everything), [everything[i] for i in chosen]


def run_room(
    root: Path,
    room: Room,
    scratch: Path,
    *,
    count: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    near_only: bool = False,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> RoomResult:
    """Runs a sample of a room's mutants. Call it in a process that has imported nothing of ours.

    Args:
        root: of the tree that is copied.
        room: what to mutate.
        scratch: an empty directory for the copies.
        count: of the sample; None for all.
        seed: of the sample.
        jobs: mutants at a time.
        near_only: leave out the tests that were not seen to run the changed line. Faster; what
            survives may then be known to a test that runs it in another process or rewritten by
            AutoGraph, so that the score is a lower bound.
        on_outcome: called after each.

    Raises:
        RuntimeError: the unchanged tests fail, so that their failing would say nothing.
    """
    begin = time.monotonic()
    possible, chosen = sampled(root, room, count, seed)
    trees: SimpleQueue[Path] = SimpleQueue()
    for job in range(jobs):
        trees.put(_copied_tree(root, scratch / f"tree_{job}"))
    known = _unchanged(trees, room, scratch)
    _warm(known.libraries)

    def run(item: tuple[str, Mutant]) -> Outcome:
        tree = trees.get()
        try:
            outcome = _run_mutant(tree, *item, known, near_only)
        finally:
            trees.put(tree)
        on_outcome(outcome)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        outcomes = tuple(pool.map(run, chosen))
    return RoomResult(possible, outcomes, time.monotonic() - begin)


@dataclasses.dataclass(frozen=True)
class _Tests:
    """What the run of the unchanged tests said."""

    by_line: dict[tuple[str, int], list[str]]
    seconds: dict[str, float]
    libraries: list[str]

    def stages(self, path: str, mutant: Mutant, near_only: bool) -> Iterator[list[str]]:
        """Tests in the order in which they are asked; the first ones are likely to notice."""
        tests = self.by_line.get((path, mutant.line), [])
        near = sorted(tests, key=lambda test: self.seconds[test])
        if near:
            yield near[:5]
            yield near[5:]
            if near_only:
                return
        yield [test for test in self.seconds if test not in set(near)]


def _copied_tree(root: Path, goal: Path) -> Path:
    """What git knows of, and what is new but not ignored."""
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (goal / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, goal / name)
    return goal


def _unchanged(trees: SimpleQueue[Path], room: Room, scratch: Path) -> _Tests:
    tree = trees.get()
    files, report = room.test_files(tree), scratch / "unchanged.json"
    if not files:
        raise RuntimeError(f"a room must have tests; got none for {room.tests}")
    sources = room.source_files(tree)
    code, _ = _in_child(tree, lambda: _record(tree, sources, files, report), None)
    trees.put(tree)
    if code != _PASSED:
        log = (tree / "pytest.log").read_text()
        raise RuntimeError(
            f"the unchanged tests must pass; pytest ended with {code}:\n{log[-4000:]}"
        )
    document = json.loads(report.read_text())
    by_line = {(path, line): tests for path, line, tests in document["lines"]}
    return _Tests(by_line, document["seconds"], document["libraries"])


def _record(tree: Path, sources: list[str], files: list[str], report: Path) -> int:
    plugin = LinesOfTests(str(tree), sources)
    code = _pytest(tree, files, plugin)
    lines = [[path, line, sorted(tests)] for (path, line), tests in plugin.tests.items()]
    files = [(name, getattr(module, "__file__", None)) for name, module in sys.modules.items()]
    libraries = [name for name, file in files if file and "site-packages" in file]
    report.write_text(
        json.dumps({"lines": lines, "seconds": plugin.seconds, "libraries": libraries})
    )
    return code


def _warm(libraries: list[str]) -> None:
    """Imports what the tests did, in their order; a module that is none to import is left out."""
    for name in libraries:
        with contextlib.suppress(Exception):
            import_module(name)


def _run_mutant(tree: Path, path: str, mutant: Mutant, known: _Tests, near_only: bool) -> Outcome:
    begin, killed = time.monotonic(), False
    original = (tree / path).read_text()
    (tree / path).write_text(mutant.source)
    try:
        for tests in filter(None, known.stages(path, mutant, near_only)):
            limit_s = _LEAST_TIMEOUT_S + _SLOWER * sum(known.seconds[test] for test in tests)
            code, _ = _in_child(tree, lambda tests=tests: _pytest(tree, tests), limit_s)  # type: ignore[misc]
            killed = code != _PASSED
            if killed:
                break
    finally:
        (tree / path).write_text(original)
    return Outcome(path, mutant, killed, time.monotonic() - begin)


def _pytest(tree: Path, tests: Sequence[str], *plugins: object) -> int:
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short", f"--rootdir={tree}"]
    return int(pytest.main([*options, "-c", str(tree / "setup.cfg"), *tests], plugins=plugins))


def _in_child(tree: Path, work: Callable[[], int], limit_s: float | None) -> tuple[int, float]:
    """(exit status of `work` in a forked process, its seconds); -1 when it ran out of time."""
    begin = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _become_child(tree, work)
    try:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status), time.monotonic() - begin
            if limit_s is not None and time.monotonic() - begin > limit_s:
                return _TIMED_OUT, time.monotonic() - begin
            time.sleep(0.05)
    finally:
        _end_group(child)


def _become_child(tree: Path, work: Callable[[], int]) -> None:
    code = _FAILED
    try:
        os.setpgid(0, 0)
        out = os.open(tree / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(out, stream)
        os.chdir(tree)
        os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1")
        sys.dont_write_bytecode = True
        sys.path[:] = [str(tree), *(p for p in sys.path if p and Path(p).resolve() != _ROOT)]
        for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
            del sys.modules[name]  # ours come from the copy
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_group(child: int) -> None:
    """Ends what the tests of a child left running, and the child itself."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        return
