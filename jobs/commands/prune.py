"""`clickparity prune`: deletes old versions, never the live one."""

from __future__ import annotations

import argparse
from typing import Any

from serving.repository.repository import ModelRepository

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Keeps the newest `--keep` versions."""
    gone = ModelRepository(arguments.models, arguments.name).prune(arguments.keep)
    text = f"deleted {', '.join(map(str, gone))}" if gone else "nothing to delete"
    return {"deleted": gone, "kept": arguments.keep}, f"{arguments.name}: {text}"
