"""YAML that people write, read within bounds: size, depth, and what aliases multiply.

A few hundred bytes of nested aliases stand for billions of values ('a billion laughs'); whoever looks at
the document, if only to print it, never comes to an end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError

__all__ = ["parse_yaml", "read_text"]

_MOST_BYTES = 16 << 20
_MOST_DEPTH = 50
_MOST_NODES = 1_000_000  # aliases written out
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_text(path: Path) -> str:
    """The UTF-8 text of a file that is to be parsed, with or without a byte order mark.

    Raises:
        ConfigError: it is larger than any such file.
        OSError, UnicodeDecodeError: it cannot be read, or is no text.
    """
    with open(path, "rb") as stream:
        data = stream.read(_MOST_BYTES + 1)
    _check_size(len(data), str(path))
    return data.decode("utf-8-sig")


def parse_yaml(text: str, origin: str) -> Any:
    """The one document of a text.

    Args:
        text: YAML.
        origin: how messages call it.

    Raises:
        ConfigError: it is not YAML, is deeper than 50 levels, or larger than 16 MiB or (aliases written
            out) a million values.
    """
    _check_size(len(text), origin)
    try:
        _check_bounds(text, origin)
        return yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the 45th of May
        where = " ".join(str(error).split())
        raise ConfigError(f"{origin} must be YAML", where, "Correct that line.") from None


def _check_size(size: int, origin: str) -> None:
    if size > _MOST_BYTES:
        most = f"{origin} must be YAML of at most {_MOST_BYTES >> 20} MiB"
        raise ConfigError(most, "more", "Is it the right file?")


def _check_bounds(text: str, origin: str) -> None:
    """Follows the parser's events, which costs what the text costs, whatever its aliases stand for."""
    sizes: dict[str, int] = {}  # of the node that an anchor names
    open_nodes: list[tuple[str | None, int]] = []  # (anchor, size before it)
    size = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, size))
            size += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = size - before
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_nodes):
                raise ConfigError(
                    f"{origin} must hold no alias to what it is part of",
                    f"*{event.anchor}",
                    "Write the values out.",
                )
            size += sizes.get(str(event.anchor), 1)
        if size > _MOST_NODES or len(open_nodes) > _MOST_DEPTH:
            raise ConfigError(
                f"{origin} must be at most {_MOST_DEPTH} levels deep and hold at most "
                f"{_MOST_NODES:,} values, aliases written out",
                f"more in line {event.start_mark.line + 1 if event.start_mark else 1}",
                "Write the values out instead of nesting aliases.",
            )
