"""What the machine denies (room on a disk, permission, memory) as one message: path, need, remedy.

The libraries say it in many ways: an OSError with its number, a TensorFlow error with the C library's
text, Beam's wrapping of either with the traceback of a worker. All are recognised here, at one door.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ClickparityError, ConfigError
from pipeline.memory import available_memory

__all__ = ["MachineError", "free_space", "machine_error"]


class MachineError(ClickparityError):
    """The machine denied something for now; exit code 1: the same command succeeds once that is changed."""


_AGAIN = "then start the same command again: what is finished is not repeated."
_PERMISSION = (
    "inputs must be readable, and output directories writable",
    "Choose another path, or fix its permissions.",
)
_THERE = (
    "a file that is being used must stay where it is",
    "Check the path, and that nothing else deletes or moves it.",
)
_PASSING: dict[int, tuple[str, str]] = {  # number -> rule, remedy: a retry may help
    errno.ENOSPC: ("the disk must have room for what is written", f"Free space, {_AGAIN}"),
    errno.EDQUOT: (
        "the quota must leave room for what is written",
        f"Free space or raise the quota, {_AGAIN}",
    ),
    errno.EFBIG: (
        "files must be allowed to grow as large as needed",
        f"Raise the limit of a file's size (`ulimit -f`, or the file system's own), {_AGAIN}",
    ),
    errno.EIO: (
        "the disk must read and write without errors",
        "Look at the kernel's log (dmesg) and at the disk or the network behind it, or choose "
        f"another directory, {_AGAIN}",
    ),
    errno.ESTALE: ("the network file system must keep its files", f"Mount it again, {_AGAIN}"),
    errno.EMFILE: (
        "a process must be allowed to open all the files that it needs",
        "Raise the limit of open files (`ulimit -n`).",
    ),
    errno.ENFILE: (
        "the machine must be able to open all the files that are needed",
        "End other programs, or raise fs.file-max.",
    ),
    errno.ENOMEM: ("the machine must have enough memory", ""),
}
_LASTING: dict[int, tuple[str, str]] = {  # a retry does not help: exit code 2
    errno.ENOENT: _THERE,
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: (
        "what is written must be on a file system that is mounted for writing",
        "Choose another directory, or mount it for writing.",
    ),
    errno.ENAMETOOLONG: (
        "paths must be short enough for the file system",
        "Choose a shorter path, or a shorter name.",
    ),
    errno.EISDIR: ("a file is needed, not a directory", "Name a file."),
    errno.ENOTDIR: ("a directory is needed, not a file", "Name a directory."),
    errno.ELOOP: ("symbolic links must end somewhere", "Name the file itself."),
}
_FAULTS = {**_PASSING, **_LASTING}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MEMORY = (
    "Use a machine with more memory (or a higher limit of the container), a smaller "
    "train.global_batch_size or preprocess.block_bytes, or smaller embedding tables "
    "(model.embedding_dim, model.embedding.compression, `min_count` in the schema); of a GPU's memory, "
    "train.tables_on=host takes the tables out."
)
# As the C library says it, which TensorFlow and Arrow repeat; workers' tracebacks hold the number, too.
_TEXTS = {
    os.strerror(number): number
    for number in (*_FULL, errno.EIO, errno.ESTALE, errno.EROFS, errno.EMFILE)
}
_NUMBERED = re.compile(r"\[Errno (\d+)\]|\[errno (\d+)\]")
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")  # NumPy: the number of the error is lost
_OUT_OF_MEMORY = re.compile(
    r"OOM when allocating tensor with shape\[[^\]]*\]|failed to allocate \S+|bad_alloc|"
    r"\bMemoryError\b|ArrowMemoryError|out of memory",
    re.IGNORECASE,
)
_PATH = re.compile(r"(?<![\w/:])(/[^\s'\";:,()\[\]]+)")
_LONGEST_SEARCHED = 20_000  # characters of a message: workers' tracebacks are long


def machine_error(
    error: BaseException, path: str | Path | None = None, needed_bytes: int | None = None
) -> ClickparityError | None:
    """What the machine denied, where that is why `error` was raised.

    Args:
        error: as it was raised; what it was raised from is looked at, too.
        path: what was being written, where the error itself does not name a file.
        needed_bytes: how much it takes, where that is known.

    Returns:
        The one message: a `MachineError` (exit code 1), or a `ConfigError` where a retry cannot help; None
        for anything else.
    """
    for each in _chain(error):
        if isinstance(each, ClickparityError):
            return each if isinstance(each, MachineError) else None
        if isinstance(each, MemoryError):
            return _no_memory(str(each))
        if isinstance(each, OSError) and each.errno in _FAULTS:
            named = each.filename2 or each.filename
            named = os.fsdecode(named) if isinstance(named, (str, bytes)) else _path_in(str(each))
            return _of_number(each.errno, named or path, needed_bytes)
        if isinstance(each, (OSError, RuntimeError)) or _is_of_tensorflow(each):
            said = str(each)
            text = said[:_LONGEST_SEARCHED] + said[-_LONGEST_SEARCHED:]
            if found := _OUT_OF_MEMORY.search(text):
                return _no_memory(found[0])
            if (number := _number_in(text)) is not None:
                return _of_number(number, _path_in(text) or path, needed_bytes)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, the outermost first."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def _number_in(text: str) -> int | None:
    numbers = [int(a or b) for a, b in _NUMBERED.findall(text)]
    numbers += [number for said, number in _TEXTS.items() if said in text]
    if _CUT_SHORT.search(text):
        numbers.append(errno.ENOSPC)
    return next((n for n in numbers if n in _FAULTS), None)


def _is_of_tensorflow(error: BaseException) -> bool:
    """Without importing TensorFlow: where it is not imported, nothing of it was raised."""
    return any(
        kind.__name__ == "OpError" and kind.__module__.startswith("tensorflow.")
        for kind in type(error).__mro__
    )


def _path_in(text: str) -> str | None:
    """The first path in a message that is, or whose folder is, on this machine; source files aside."""
    for found in _PATH.finditer(text):
        path = found[1].rstrip(".")
        if not path.endswith((".py", ".cc", ".so", ".h")) and Path(path).parent.is_dir():
            return path
    return None


def _of_number(number: int, path: str | Path | None, needed_bytes: int | None) -> ClickparityError:
    if number == errno.ENOMEM:
        return _no_memory("")
    rule, remedy = _FAULTS[number]
    said = os.strerror(number)
    if number in _FULL:
        said += f"; {needed_bytes:,} bytes needed" if needed_bytes else ""
        said += free_space(path)
    received = f"{path or 'a file that the message does not name'} ({said})"
    kind = ConfigError if number in _LASTING else MachineError
    return kind(rule, received, remedy)


def free_space(path: str | Path | None) -> str:
    """What to add to a message about a full disk: "; 1,234 bytes free on the disk of FOLDER"."""
    place = Path(path or ".").absolute()
    for folder in (place, *place.parents):
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            continue
        return f"; {free:,} bytes free on the disk of {folder}"
    return ""


def _no_memory(said: str) -> MachineError:
    what = said.split("\n")[0].strip()[:200] or "an allocation failed"
    return MachineError("the machine must have enough memory", what + _available(), _MEMORY)


def _available() -> str:
    free = available_memory()
    return "" if free is None else f"; {free:,} bytes available"
