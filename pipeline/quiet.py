"""One filter for what TensorFlow writes while it is loaded, in every process that imports `pipeline`.

The lines of its start ("WARNING: All log messages before absl::InitializeLog() is called ...", oneDNN,
CUDA stubs) ignore TF_CPP_MIN_LOG_LEVEL, and no other variable reaches them. Once loaded it obeys. So the
standard error is held back during that one import, and lines below the level are left out; all others
appear, a moment late. TF_CPP_MIN_LOG_LEVEL=0 (`--verbose`) shows everything and holds nothing back.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

__all__ = ["install", "is_noise"]

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_LIBRARY = "tensorflow"
_BANNER = b"WARNING: All log messages before absl::InitializeLog()"
# absl's prefix: severity, month and day, time (or 0000 00:00: and seconds), thread, file:line]
_ABSL = re.compile(rb"^([IWEF])\d{4} \d\d:\d\d:\d+\.\d+ +\d+ [\w./+-]+:\d+\] ")
_SEVERITIES = b"IWEF"


def is_noise(line: bytes, level: int) -> bool:
    """Whether a line of the standard error is absl's and below the level (0 all .. 3 fatal only)."""
    if line.startswith(_BANNER):
        return level > 0
    found = _ABSL.match(line)
    return found is not None and _SEVERITIES.index(found[1]) < level


def install() -> None:
    """Filters the import of TensorFlow in this process, unless it is there already; sets quiet defaults."""
    os.environ.setdefault(_LEVEL, "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its errors come as exceptions
    known = any(isinstance(finder, _Finder) for finder in sys.meta_path)
    if _LIBRARY not in sys.modules and not known:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as everybody does, and once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _LIBRARY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads as the loader it is given, with the standard error filtered."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader  # what inspects the module sees no trace of this
        module.__loader__ = self._loader
        level = os.environ.get(_LEVEL, "")
        with _filtered(int(level) if level.isdigit() else 0):
            self._loader.exec_module(module)


@contextlib.contextmanager
def _filtered(level: int) -> Iterator[None]:
    """Holds the process's standard error back, and gives what is no noise afterwards."""
    import tempfile  # not for the many processes that never load TensorFlow

    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile())
            real = os.dup(2) if level > 0 else None
        except OSError:  # no room, or no standard error at all: then nothing is filtered
            real = None
        if real is None:
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            kept = b"".join(line for line in held if not is_noise(line, level))
            with contextlib.suppress(OSError):
                os.write(2, kept)
