"""The picture of the rooms and the arrows between them, drawn from the code's own imports.

    python -m docs.draw_architecture > architecture.svg

A room is a top-level package, in the order of the layer contract in setup.cfg; its boxes are its folders. An
arrow is there because a file of one room imports a file of the other; its number is how many files do. No
file is imported for it: the imports are read from the syntax tree.
"""

from __future__ import annotations

import ast
import configparser
import dataclasses
import html
import re
import sys
from collections import Counter
from pathlib import Path

__all__ = ["Room", "draw", "read_rooms"]

ROOT = Path(__file__).resolve().parents[1]
_WIDTH, _MARGIN, _BOX_HEIGHT, _GAP = 760, 4, 30, 8
_TITLE, _BAND_GAP, _LANE = 34, 46, 145
_LETTER = 7.4  # width of a letter at 13 px
_COLOURS = ("#eef4ff", "#f0f7ee", "#fff6e5", "#fdeef0", "#f3effa", "#e9f6f6")


@dataclasses.dataclass(frozen=True)
class Room:
    """A top-level package.

    Attributes:
        name: of the package.
        line: the first sentence of its docstring.
        parts: its folders (and files) -> the first line of their docstrings.
        imports: room -> how many files of this one import it.
    """

    name: str
    line: str
    parts: dict[str, str]
    imports: dict[str, int]


def read_rooms(root: Path = ROOT) -> list[Room]:
    """The rooms from the top (which nobody imports) to the bottom."""
    names = _layers(root)
    return [_read_room(root, name, names) for name in names]


def _layers(root: Path) -> list[str]:
    """Their names, in the order of the layer contract."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    contract = next(
        config[s] for s in config.sections() if s.startswith("importlinter:") and
        config[s].get("type") == "layers" and "containers" not in config[s]
    )  # fmt: skip
    found = re.findall(r"\w+", contract["layers"])
    return [name for name in found if (root / name / "__init__.py").is_file()]


def _read_room(root: Path, name: str, rooms: list[str]) -> Room:
    parts: dict[str, str] = {}
    imports: Counter[str] = Counter()
    for file in sorted((root / name).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for other in _imported(tree) & set(rooms) - {name}:
            imports[other] += 1
        relative = file.relative_to(root / name).parts
        line = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
        if relative == ("__init__.py",):
            room_line = line
        elif len(relative) == 1:
            parts[relative[0]] = line
        elif relative[1:] == ("__init__.py",):
            parts[relative[0] + "/"] = line
    folders_first = sorted(parts, key=lambda part: (not part.endswith("/"), part))
    return Room(name, room_line, {part: parts[part] for part in folders_first}, dict(imports))


def _imported(tree: ast.AST) -> set[str]:
    """The top-level packages that a file imports, also inside of functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def draw(rooms: list[Room]) -> str:
    """The picture as SVG, with its own light background (readable on a dark page too)."""
    shapes: list[str] = []
    tops: dict[str, tuple[float, float]] = {}
    y = float(_MARGIN)
    for i, room in enumerate(rooms):
        boxes, height = _boxes(room, y + _TITLE)
        colour = _COLOURS[i % len(_COLOURS)]
        shapes.append(
            f'<rect x="{_MARGIN}" y="{y}" width="{_WIDTH - 2 * _MARGIN}" height="{height + _TITLE}" '
            f'rx="8" fill="{colour}" stroke="#b8c4d0"/>'
        )
        shapes.append(_text(_MARGIN + 12, y + 22, f"{room.name}/", size=15, weight=600))
        words = _shortened(room.line, _WIDTH - 2 * _MARGIN - 140)
        shapes.append(_text(_MARGIN + 118, y + 22, words, colour="#51606f"))
        shapes += boxes
        tops[room.name] = (y, y + height + _TITLE)
        y += height + _TITLE + _BAND_GAP
    shapes += _arrows(rooms, tops)
    height = y - _BAND_GAP + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
        f'width="{_WIDTH}" height="{height:.0f}" role="img" font-family="system-ui, sans-serif" '
        'font-size="13"><title>The rooms and which imports which</title><defs><marker id="tip" '
        'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#42526e"/></marker></defs>'
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#ffffff"/>{"".join(shapes)}</svg>\n'
    )


def _boxes(room: Room, top: float) -> tuple[list[str], float]:
    """A box a folder, row by row, and the height of all of them."""
    names = [part for part in room.parts if part.endswith("/")]
    names = names or [part for part in room.parts if part != "__main__.py"]
    shapes, x, y = [], _MARGIN + 12.0, top
    for name in names:
        width = len(name) * _LETTER + 18
        if x + width > _WIDTH - _MARGIN - 12:
            x, y = _MARGIN + 12.0, y + _BOX_HEIGHT + _GAP
        title = html.escape(room.parts[name])
        shapes.append(
            f'<g><title>{title}</title><rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" '
            f'height="{_BOX_HEIGHT}" rx="5" fill="#ffffff" stroke="#8fa1b3"/>'
            + _text(x + width / 2, y + 20, name, anchor="middle")
            + "</g>"
        )
        x += width + _GAP
    return shapes, y - top + _BOX_HEIGHT + 12


def _arrows(rooms: list[Room], tops: dict[str, tuple[float, float]]) -> list[str]:
    """Into each room, one arrow a room that imports it; one from below, which is forbidden, is red."""
    shapes: list[str] = []
    for i, target in enumerate(rooms):
        users = [room for room in rooms if target.name in room.imports]
        for lane, user in enumerate(users):
            x = 30 + _LANE * lane
            label = _count(user.imports[target.name], user.name)
            is_allowed = rooms.index(user) < i
            if is_allowed:
                start, end = tops[rooms[i - 1].name][1], tops[target.name][0] - 2
            else:
                start, end = tops[rooms[i + 1].name][0], tops[target.name][1] + 2
            colour = "#42526e" if is_allowed else "#c62828"
            shapes.append(
                f'<line x1="{x}" y1="{start:.0f}" x2="{x}" y2="{end:.0f}" stroke="{colour}" '
                'stroke-width="1.6" marker-end="url(#tip)"/>'
            )
            middle = (start + end) / 2 + 2
            shapes.append(_text(x + 8, middle, label, size=12, colour=colour))
    return shapes


def _count(files: int, room: str) -> str:
    return f"{files} file{'s' * (files != 1)} of {room}"


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 13,
    weight: int = 400,
    colour: str = "#1d2733",
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}" text-anchor="{anchor}">{html.escape(words)}</text>'
    )


def _shortened(words: str, width: float) -> str:
    limit = int(width / (_LETTER * 0.92))
    return words if len(words) <= limit else words[: limit - 1].rstrip() + "…"


if __name__ == "__main__":
    sys.stdout.write(draw(read_rooms()))
