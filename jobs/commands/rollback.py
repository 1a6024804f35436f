"""`clickparity rollback`: serves an older version's bytes again, under the next number."""

from __future__ import annotations

import argparse
from typing import Any

from serving.repository.repository import ModelRepository
from serving.repository.version_check import loads_and_answers

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Publishes the older version again; the bad one stays listed."""
    repository = ModelRepository(arguments.models, arguments.name)
    answer = repository.rollback(arguments.to, check=loads_and_answers)
    return {"version": answer.number, "fingerprint": answer.fingerprint}, answer.message
