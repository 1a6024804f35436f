"""This interpreter in a process of its own, with what the tests can import."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def answer_of(arguments: Sequence[object], *, timeout_s: float, **environment: str) -> str:
    """What `python ARGUMENTS` prints; the test fails with its stderr when it does not end well."""
    path = os.pathsep.join([str(_ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
