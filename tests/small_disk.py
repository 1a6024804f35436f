"""A file system of a few kilobytes, to run out of."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["small_disk"]


@contextlib.contextmanager
def small_disk(at: Path, size: int, *options: str) -> Iterator[Path]:
    """A tmpfs of `size` bytes, mounted until the block ends; skips where this user may not mount.

    Args:
        at: made when missing.
        size: in bytes; rounded up to whole pages.
        *options: of the mount, e.g. "ro".
    """
    at.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(at)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)
