"""One line of JSON, within bounds."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["MOST_LEVELS", "parse_json"]

MOST_LEVELS = 100


def parse_json(line: bytes, **hooks: Any) -> Any:
    """The value of a line.

    Args:
        line: UTF-8.
        **hooks: of `json.loads`.

    Raises:
        ValueError: it is no JSON, or nested deeper than `MOST_LEVELS`: whoever walks it (to print it, say)
            would run out of stack.
    """
    try:
        found = json.loads(line, **hooks)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if line.count(b"[") + line.count(b"{") > MOST_LEVELS and _levels(found) > MOST_LEVELS:
        raise _too_deep()
    return found


def _too_deep() -> ValueError:
    return ValueError(f"not JSON of at most {MOST_LEVELS} levels: nested deeper")


def _levels(value: Any) -> int:
    """How deep lists and objects are nested, without recursion."""
    levels, here = 0, [value]
    while here := [v for v in here if isinstance(v, (list, dict))]:
        levels += 1
        here = [v for each in here for v in (each.values() if isinstance(each, dict) else each)]
    return levels
