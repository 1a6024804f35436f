"""Steps are directories: written beside the goal, renamed when whole, `_SUCCESS` last.

A finished step is recognised by the fingerprint in `_SUCCESS` and not repeated; a killed one leaves
only a staging directory, which the next start clears away. Needs no TensorFlow and no Beam.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import ClickparityError, ConfigError
from pipeline.machine_faults import MachineError, machine_error
from pipeline.paths import local_path

__all__ = [
    "SUCCESS",
    "exclusive",
    "fingerprint_of",
    "flush_to_disk",
    "is_finished",
    "make_writable",
    "step_directory",
    "sync_tree",
    "write_atomically",
]

SUCCESS = "_SUCCESS"


def fingerprint_of(*parts: Any) -> str:
    """16 hex digits of any JSON-like values."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_finished(goal: Path, fingerprint: str | None = None) -> bool:
    """Whether `goal` holds a finished step (of this fingerprint, when one is given)."""
    try:
        found = (goal / SUCCESS).read_text().strip()
    except OSError:
        return False
    return fingerprint is None or found == fingerprint


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Holds a lock file; the kernel releases it even when the holder is killed.

    Raises:
        ClickparityError: another process holds it (exit 1: a retry may help).
        ConfigError: the file system has no locks.
    """
    with open(lock, "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(lock) from None
        except OSError as error:  # ENOLCK, ENOTSUP: a network file system without a lock service
            lock.unlink(missing_ok=True)
            raise ConfigError(
                "the output must be on a file system with file locks",
                f"{lock} ({error.strerror or error})",
                "Choose a local directory, or mount this one with locks (NFS: start its lock service, "
                "or mount with local_lock=flock where one machine alone writes there).",
            ) from None
        # Whoever held the lock before may have removed the file that we hold now.
        if not lock.exists() or os.fstat(handle.fileno()).st_ino != lock.stat().st_ino:
            raise _busy(lock)
        yield


def _busy(lock: Path) -> ClickparityError:
    return ClickparityError(
        "one process at a time may work on a directory",
        f"another one holds {lock}",
        "Wait for it, then start again.",
    )


@contextlib.contextmanager
def step_directory(goal: Path, fingerprint: str) -> Iterator[Path]:
    """A staging directory that becomes `goal`, whole, when the block ends without an error.

    Raises:
        ConfigError: `goal` cannot be written, or already holds something else.
        ClickparityError: another process works on it.
        MachineError: the disk is full, say; the staging directory is removed.
    """
    if (
        goal.exists()
        and (goal.is_file() or any(goal.iterdir()))
        and not is_finished(goal, fingerprint)
    ):
        what = "a file" if goal.is_file() else "another data set or run"
        raise ConfigError(
            "an output directory must be new, empty, or hold this very step",
            f"{goal} ({what})",
            "Choose another directory, or remove it.",
        )
    # A name of its own each time: workers that outlive a killed start write into nothing.
    prefix, lock = f".{goal.name}.staging-", goal.with_name(f".{goal.name}.lock")
    staging = goal.with_name(f"{prefix}{os.getpid()}-{time.time_ns():x}")
    make_writable(goal.parent)
    with exclusive(lock):
        for left_over in goal.parent.glob(glob.escape(prefix) + "*"):
            shutil.rmtree(left_over, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            write_atomically(staging / SUCCESS, fingerprint + "\n")
            sync_tree(staging)
            if is_finished(goal, fingerprint):
                return  # somebody else was faster, with the same result
            if goal.exists() and not any(goal.iterdir()):
                goal.rmdir()
            os.rename(staging, goal)
            flush_to_disk(goal.parent)
        except Exception as error:
            if (fault := machine_error(error, goal)) is not None:
                raise fault from error
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            lock.unlink(missing_ok=True)


def make_writable(directory: Path) -> None:
    """Creates `directory` and proves that it can be written.

    Raises:
        ConfigError: it cannot, or lies on a store (a scheme), which is never taken for a local folder.
        MachineError: the disk is full.
    """
    local_path(directory, "an output directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if isinstance(fault := machine_error(error, directory), MachineError):
            raise fault from None
        raise ConfigError(
            "the output directory must be writable",
            f"{directory} ({error.strerror or error})",
            "Choose another directory, or fix its permissions.",
        ) from None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes beside, syncs, renames: readers see the old content or the new, never a part.

    Raises:
        OSError: the directory cannot be written; nothing is left behind then.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(beside, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def sync_tree(directory: Path) -> None:
    """Fsync of every file and directory below."""
    for root, _, files in os.walk(directory):
        for name in files:
            flush_to_disk(Path(root) / name)
        flush_to_disk(Path(root))


def flush_to_disk(path: Path) -> None:
    """Fsync of a file, or of a directory's entries: what was written or renamed survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
