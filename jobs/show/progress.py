"""What long work shows: a live line on a terminal, elsewhere (a pod's log) a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.plain_text import plain

__all__ = ["LOG_EVERY_S", "block_progress", "say"]

LOG_EVERY_S = 30.0
_LOOK_EVERY_S = 0.25
_SHARD_SHARE = 0.125  # of reading all blocks: what writing the shards may take
_PREFIX = {"statistics": "count"}  # of the marks of a phase, where it is not the phase's name


def say(line: str) -> None:
    """A line (or a table) of the log, on stderr; control characters are written out."""
    print(plain(line, lines=True), file=sys.stderr, flush=True)


@contextlib.contextmanager
def block_progress(
    phase: str, marks: Path, num_blocks: int, console: Console | None = None
) -> Iterator[None]:
    """Shows how far a Beam job is, from the marks that finished blocks (and shards) leave.

    Args:
        phase: times, statistics, encode or score.
        marks: the directory of marks, named <phase>-<block>-<rows>; the encode phase is at its end only
            when its shards are written beside it, too.
        num_blocks: blocks to read.
        console: stderr, when left out.
    """
    console = console or Console(stderr=True)
    started, prefix = time.monotonic(), _PREFIX.get(phase, phase)

    def look() -> tuple[float, float, int]:
        """(steps done, of how many, rows read)."""
        rows = [int(m.name.split("-")[2]) for m in marks.glob(f"{prefix}-*-*")]
        if phase != "encode":
            return len(rows), num_blocks, sum(rows)
        extra = _SHARD_SHARE * num_blocks
        return len(rows) + extra * _shards_written(marks.parent), num_blocks + extra, sum(rows)

    show = _live(phase, console) if console.is_terminal else _lines(phase, console)
    with show as update:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_LOOK_EVERY_S):
                update(*look(), time.monotonic() - started)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        _, total, rows = look()
        update(total, total, rows, time.monotonic() - started)


def _shards_written(staging: Path) -> float:
    """The share of the shards that is written, as far as their names (part-<i>-of-<n>) tell."""
    shards = [(p.parent.name, p.stem) for p in staging.glob("*/part-*-of-*.tfrecord")]
    expected = sum({split: int(name.split("-")[3]) for split, name in shards}.values())
    return len(shards) / max(expected, 1)


_Update = Callable[[float, float, int, float], None]


@contextlib.contextmanager
def _live(phase: str, console: Console) -> Iterator[_Update]:
    """A bar that moves."""
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=20),
        TextColumn(
            "{task.percentage:>3.0f} % {task.fields[rows]:>13,} rows {task.fields[speed]:>9,} rows/s"
        ),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task(phase, total=None, rows=0, speed=0)

        def update(steps: float, total: float, rows: int, elapsed_s: float) -> None:
            speed = int(rows / max(elapsed_s, 1e-9))
            bar.update(task, completed=steps, total=total, rows=rows, speed=speed)

        yield update


@contextlib.contextmanager
def _lines(phase: str, console: Console) -> Iterator[_Update]:
    """A line every `LOG_EVERY_S` seconds, and one at the end."""
    last = [0.0]

    def update(steps: float, total: float, rows: int, elapsed_s: float) -> None:
        finished = steps >= total
        if not finished and elapsed_s - last[0] < LOG_EVERY_S:
            return
        last[0] = elapsed_s
        share, speed = steps / max(total, 1), rows / max(elapsed_s, 1e-9)
        line = f"{phase:<10} {share:4.0%}  {rows:,} rows  {speed:,.0f} rows/s  {elapsed_s:.0f} s"
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    yield update
