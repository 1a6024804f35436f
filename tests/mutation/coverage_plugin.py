"""A pytest plugin: which lines of the given files each test runs, and how long it takes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

__all__ = ["LinesOfTests"]


class LinesOfTests:
    """Records while tests run; code that runs in other processes or is rewritten is not seen.

    Args:
        root: the directory that the files are relative to.
        files: whose lines count.

    Attributes:
        tests: (file, line) -> the tests that run it.
        seconds: test -> its duration, with its fixtures.
    """

    def __init__(self, root: str, files: list[str]) -> None:
        self._files = {os.path.join(root, file): file for file in files}
        self._current = ""
        self.tests: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Around each test with its fixtures."""
        self._current, begin = item.nodeid, time.monotonic()
        threading.settrace(self._frame)
        sys.settrace(self._frame)
        try:
            return (yield)  # type: ignore[misc]
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            self.seconds[item.nodeid] = time.monotonic() - begin

    def _frame(self, frame: FrameType, event: str, argument: Any) -> Any:
        file = self._files.get(frame.f_code.co_filename)
        if file is None:
            return None

        def line(inner: FrameType, event: str, argument: Any) -> Any:
            self.tests[file, inner.f_lineno].add(self._current)
            return line

        return line(frame, event, argument)
