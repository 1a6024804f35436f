"""`clickparity publish`: makes an export the next version of a model."""

from __future__ import annotations

import argparse
from typing import Any

from serving.repository.repository import ModelRepository
from serving.repository.version_check import loads_and_answers

__all__ = ["main"]


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Copies beside, verifies, loads once, renames."""
    repository = ModelRepository(arguments.models, arguments.name)
    answer = repository.publish(arguments.export, check=loads_and_answers, force=arguments.force)
    return {
        "version": answer.number,
        "path": str(answer.path),
        "fingerprint": answer.fingerprint,
        "outcome": answer.outcome.value,
    }, answer.message
