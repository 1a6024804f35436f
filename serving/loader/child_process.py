"""Python in a process of its own, on the CPU, and the line that says why it failed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from pipeline.python_process import python_command

__all__ = ["why_failed"]


def why_failed(
    arguments: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> str | None:
    """Runs this interpreter and waits for its end.

    Args:
        arguments: after the interpreter's name.
        timeout_s: how long it may take.
        environment: variables to set beside this process's own.

    Returns:
        None when it ended well, else its last line on stderr.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        python_command(arguments),
        env={**os.environ, **quiet, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1][:500] if lines else f"exit {done.returncode}"
