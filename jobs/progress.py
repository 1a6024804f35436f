"""What long work shows: one line on stderr with rows, rows a second and percent."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["block_progress", "say"]


def say(line: str) -> None:
    """A line of the log, on stderr."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def block_progress(phase: str, marks: Path, num_blocks: int) -> Iterator[None]:
    """Shows how far a local Beam job is, from the marks that finished blocks leave.

    Args:
        phase: statistics, encode or times.
        marks: the directory of marks, named <phase>-<block>-<rows>.
        num_blocks: how many there will be.
    """
    prefix = {"statistics": "count", "encode": "encode"}.get(phase)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(bar_width=24),
        TextColumn(
            "{task.percentage:>3.0f} %  {task.fields[rows]:>12,} rows  {task.fields[speed]:>9,} rows/s"
        ),
        TimeElapsedColumn(),
    )
    done = threading.Event()
    with Progress(*columns, console=console, transient=False, refresh_per_second=4) as bar:
        task = bar.add_task(phase, total=num_blocks, rows=0, speed=0)

        def look() -> None:
            names = [m.name.split("-") for m in marks.iterdir()] if prefix else []
            mine = [n for n in names if n[0] == prefix]
            rows = sum(int(n[2]) for n in mine)
            elapsed = bar.tasks[0].elapsed or 0.0
            speed = int(rows / elapsed) if elapsed > 0 else 0
            bar.update(task, completed=len(mine), rows=rows, speed=speed)

        def watch() -> None:
            while not done.wait(0.25):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
            done.set()
            thread.join()
            look()
            bar.update(task, completed=num_blocks)
        finally:
            done.set()
