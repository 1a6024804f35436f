"""SIGTERM as an event: whoever works in steps looks at it between two of them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["sigterm_event"]


@contextlib.contextmanager
def sigterm_event() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process between two writes."""
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield terminated  # only the main thread may set handlers; its owner decides
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)
