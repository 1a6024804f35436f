"""Python processes that we start, in which the working directory shadows nothing.

`python -m` puts the working directory first on the module search path, so a user's own package `models`
there would be imported in place of ours. The option -P (PYTHONSAFEPATH) keeps it off that path.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["python_command", "python_environment"]

_ROOT = Path(__file__).resolve().parents[1]
_INSTALLED = ("site-packages", "dist-packages")


def python_command(arguments: Sequence[object]) -> list[str]:
    """This interpreter with `arguments`, and without the working directory on its search path."""
    return [sys.executable, "-P", *map(str, arguments)]


def python_environment() -> dict[str, str]:
    """Variables to set for a Python process that imports this project, beside this process's own.

    PYTHONPATH keeps the user's entries except the working directory (an empty entry means that, too),
    and begins with the folder of our packages where they are not installed.
    """
    here = os.path.realpath(os.curdir)
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in entries if os.path.realpath(entry) != here]
    own = [] if _ROOT.name in _INSTALLED else [str(_ROOT)]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join([*own, *kept])}
