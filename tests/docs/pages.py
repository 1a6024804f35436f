"""The documentation's Markdown, taken apart: fenced blocks and inline code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Fence:
    """A fenced block: its language, the file that it is (or ""), its text."""

    language: str
    title: str
    text: str


def fences(page: Path) -> list[Fence]:
    """The fenced blocks of a page, in order."""
    found = _FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Fence(m["language"], m["title"] or "", m["text"]) for m in found]


def inline_code(page: Path) -> list[str]:
    """What stands in `code` outside of fenced blocks, line breaks as spaces."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def commands_in(text: str) -> list[str]:
    """The `clickparity ...` command lines of a block, continuation lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.strip().removeprefix("$ ") for line in joined.splitlines()]
    return [line for line in lines if line.startswith("clickparity ")]


def name_of(page: Path) -> str:
    """The path of a page below the root: the id of its tests."""
    return str(page.relative_to(ROOT))
