"""Survivors that are explained: mutants which change nothing that is promised."""

from __future__ import annotations

from pathlib import Path

import yaml

__all__ = ["explained_mutants"]


def explained_mutants() -> set[tuple[str, str, str, str]]:
    """(path, place, before, after) of each entry of `equivalent.yaml`."""
    entries = yaml.safe_load(Path(__file__).with_name("equivalent.yaml").read_text())
    return {(e["path"], e["place"], e["before"], e["after"]) for e in entries}
