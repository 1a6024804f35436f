"""Plain tables for the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["number", "table"]


def number(value: Any, digits: int = 4) -> str:
    """A figure for people; a dash for what could not be measured."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2e}" if value and abs(value) < 10**-digits else f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> str:
    """Rows as text, the first column to the left, figures to the right."""
    grid = Table(title=title or None, title_justify="left", header_style="bold")
    for i, name in enumerate(header):
        grid.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        grid.add_row(*[cell if isinstance(cell, str) else number(cell) for cell in row])
    stream = io.StringIO()
    Console(file=stream, width=110).print(grid)
    return stream.getvalue().rstrip("\n")
