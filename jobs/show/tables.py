"""Plain tables for the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.plain_text import plain

__all__ = ["number", "table"]


def number(value: Any, digits: int = 4) -> str:
    """A figure for people; a dash for what could not be measured."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2e}" if value and abs(value) < 10**-digits else f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _text(shown: str) -> Text:
    return Text(plain(shown))


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> str:
    """Rows as text, the first column to the left, figures to the right.

    What comes from a file is shown as it is: `[red]` is no markup, an escape sequence is written out.
    """
    grid = Table(title=_text(title) if title else None, title_justify="left", header_style="bold")
    for i, name in enumerate(header):
        grid.add_column(_text(name), justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        grid.add_row(*[_text(cell if isinstance(cell, str) else number(cell)) for cell in row])
    stream = io.StringIO()
    Console(file=stream, width=110).print(grid)
    return stream.getvalue().rstrip("\n")
