"""The command line: `clickparity`, or `python -m clickparity`.

Not `python -m jobs.cli`, which takes a package `jobs` of the working directory for ours.
"""

from __future__ import annotations

import sys

from clickparity.own_packages import bind_own_packages

__all__ = ["entry_point"]


def entry_point() -> None:
    """The console script."""
    bind_own_packages()
    from jobs.cli import main

    sys.exit(main())


if __name__ == "__main__":
    entry_point()
