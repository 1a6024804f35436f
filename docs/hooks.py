"""What the site build does beside rendering: it adds the generated pages and checks external links.

mkdocs finds these functions by their names (`hooks:` in mkdocs.yml). Internal links and anchors are
mkdocs' own to check; external ones are held against the form of an address only, so that the build
needs no network. Every complaint is a warning, and warnings are errors under --strict.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from docs.draw_architecture import draw, read_rooms
from docs.generate import pages

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

__all__ = ["on_files", "on_page_markdown", "wrong_address"]

_LOG = logging.getLogger("mkdocs.hooks.clickparity")
_ROOT = Path(__file__).resolve().parents[1]
_ROOMS = "<!-- rooms -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and the picture that are made from the code."""
    from mkdocs.structure.files import File

    made = {
        **pages(),
        "architecture.svg": draw(read_rooms()),
        "changelog.md": (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "contributing.md": (_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    }
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Checks the external links of a page; fills in the table of the rooms."""
    for address in re.findall(r"\]\(\s*(?:<)?([a-zA-Z][\w+.-]*:[^)\s>]*)", markdown):
        complaint = wrong_address(address)
        if complaint:
            _LOG.warning("%s: the link %s %s", page.file.src_uri, address, complaint)
    return markdown.replace(_ROOMS, _rooms_table()) if _ROOMS in markdown else markdown


def wrong_address(address: str) -> str:
    """What is wrong with the form of an external link; empty when nothing is."""
    parts = urlsplit(address)
    if parts.scheme not in ("https", "http"):
        return "must begin with https://"
    host = r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}"
    is_local = parts.hostname in ("localhost", "127.0.0.1")
    if not is_local and not re.fullmatch(host, parts.hostname or ""):
        return "must name a host"
    return ""


def _rooms_table() -> str:
    """One table a room: its folders and files with the first line of their docstrings."""
    texts = []
    for room in read_rooms():
        used = ", ".join(f"`{name}`" for name in room.imports) or "no other room"
        lines = [f"### {room.name}/", "", f"{room.line} Imports {used}.", ""]
        lines += ["| part | what is there |", "| --- | --- |"]
        lines += [f"| `{room.name}/{part}` | {line} |" for part, line in room.parts.items()]
        texts.append("\n".join(lines))
    return "\n\n".join(texts)
