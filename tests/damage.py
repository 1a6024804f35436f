"""What happens to files: shared by the tests of everything that must notice."""

from __future__ import annotations

from pathlib import Path


def flip_a_bit(file: Path) -> None:
    """One bit in the middle; the size stays."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
