"""How the C library's allocator treats a training process."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_THRESHOLD = 32 << 20  # glibc refuses more
_NEVER = (1 << 31) - 1
_TOP_PAD = 16 << 20


def keep_freed_memory() -> bool:
    """Lets this process keep the memory of freed tensors for the next ones.

    An activation at batch 512 has some hundred kilobytes. TensorFlow fixes glibc's threshold at 128 KB
    when a process makes its first distributed iterator (`ApplyPython311MemoryPatch`); from then on each
    such block is mapped and unmapped, and every step pays a page fault for every 4 KB of it: measured,
    12,000 faults a step and a third of its processor time. Blocks above 32 MB, the tables, come and go
    as before.

    Returns:
        Whether it took effect: the C library is glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        _M_MMAP_THRESHOLD: _LARGEST_THRESHOLD,
        _M_TRIM_THRESHOLD: _NEVER,
        _M_TOP_PAD: _TOP_PAD,
    }
    return all(mallopt(name, value) == 1 for name, value in settings.items())
