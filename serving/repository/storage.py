"""Where published versions lie: the interface that publishing needs, and its POSIX implementation.

On POSIX the promise is whole: a version appears under its number in one `rename`, complete, checked
and flushed to the disk, or not at all, whenever the publisher is killed. That takes a file system
whose directory rename is atomic and that has `flock`: local disks, NFS v4, Lustre, CephFS; not a
bucket mounted as a file system (gcsfuse renames object by object), which is what
`serving.repository.objects` is for.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from pipeline.errors import ClickparityError, ConfigError
from pipeline.machine_faults import free_space
from pipeline.step_directory import flush_to_disk
from serving.export.manifest import file_sizes

__all__ = ["STAGING_PREFIX", "PosixStorage", "VersionStorage", "busy_error"]

STAGING_PREFIX = ".tmp-"
"""Names that begin so are unfinished or half deleted; TF Serving sees no version in them."""

_LOCK_NAME = ".publish.lock"


class VersionStorage(Protocol):
    """The children of MODELS/NAME, as `ModelRepository` needs them.

    A child is a name directly below MODELS/NAME: an integer (a version) or a staging name. All
    methods that write are called with the lock held.
    """

    location: str
    """MODELS/NAME, for messages and results."""

    def lock(self) -> AbstractContextManager[None]:
        """Makes the caller the only publisher; raises `busy_error` when there is another."""

    def children(self) -> list[str]:
        """The names below MODELS/NAME; empty when it does not exist."""

    def file_sizes(self, child: str) -> dict[str, int]:
        """The child's files: relative path -> bytes; FileNotFoundError when it is gone."""

    def read(self, child: str, path: str) -> bytes:
        """One whole file; FileNotFoundError when it is not there."""

    def stage(self, source: Path, overrides: Mapping[str, bytes]) -> str:
        """Copies a local export, some files replaced, under a fresh staging name and returns it."""

    def local_copy(self, child: str) -> AbstractContextManager[Path]:
        """The child as a local directory: the stored bytes, not what they were copied from."""

    def promote(self, staged: str, number: int) -> None:
        """Turns a staged child into version `number`; never overwrites one."""

    def remove(self, child: str) -> None:
        """Deletes a child in the order in which a server is harmed least."""

    def remove_leftovers(self) -> None:
        """Deletes what killed publishers left, before anything new is written."""

    def remove_broken_versions(self) -> None:
        """Deletes integer names that a killed publisher left unfinished, where that can happen."""


def busy_error(location: str, holder: str) -> ClickparityError:
    """The error of the loser of two publishers; exit code 1, for a retry may help."""
    return ClickparityError(
        f"only one publisher may write to {location} at a time",
        f"{holder}, which is publishing now",
        "Wait for it to finish and publish again.",
    )


@contextmanager
def _worded_for_the_operator(location: str) -> Iterator[None]:
    """Words the faults of a file system that an operator can fix."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ClickparityError(
                f"there must be room for one more version in {location}",
                f"{error.strerror}{free_space(location)}",
                "Free some space (`clickparity prune`) and publish again; nothing was changed.",
            ) from error
        unwritable = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
        if error.errno in unwritable:
            raise ConfigError(
                f"{location} must be a directory that this user may write to",
                f"{error.strerror}: {error.filename}",
                "Give another --models directory, or fix its owner and mode.",
            ) from error
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise ConfigError(
                f"{location} must lie on a file system with flock()",
                error.strerror,
                "Use a local or NFS v4 directory, or the bucket's gs:// address itself.",
            ) from error
        raise


class PosixStorage:
    """MODELS/NAME on a file system with atomic rename.

    Args:
        models_dir: MODELS; made at the first publish.
        name: the model's name.
    """

    def __init__(self, models_dir: Path, name: str) -> None:
        self._root = models_dir / name
        self.location = str(self._root)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds an `flock`, which the kernel releases however its holder dies.

        The file stays for ever: deleting a locked file would give the next two publishers
        different files to lock.
        """
        with _worded_for_the_operator(self.location):
            new = not self._root.exists()
            self._root.mkdir(parents=True, exist_ok=True)
            if new:
                flush_to_disk(self._root.parent)
            descriptor = os.open(self._root / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                with _worded_for_the_operator(self.location):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise busy_error(self.location, _holder(os.pread(descriptor, 4096, 0))) from error
            record = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, record, 0)
            try:
                yield
            finally:
                # Unlocks for a child process too, should the caller's check have forked one.
                os.ftruncate(descriptor, 0)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def children(self) -> list[str]:
        """See `VersionStorage`."""
        with _worded_for_the_operator(self.location):
            try:
                return sorted(os.listdir(self._root))
            except FileNotFoundError:
                return []

    def file_sizes(self, child: str) -> dict[str, int]:
        """See `VersionStorage`."""
        return file_sizes(self._root / child)

    def read(self, child: str, path: str) -> bytes:
        """See `VersionStorage`."""
        return (self._root / child / path).read_bytes()

    def stage(self, source: Path, overrides: Mapping[str, bytes]) -> str:
        """Copies and flushes every file and directory, so that a crash after the rename is safe."""
        staged = f"{STAGING_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        target = self._root / staged
        with _worded_for_the_operator(self.location):
            folders = {target}
            try:
                target.mkdir()
                for path in sorted(file_sizes(source)):
                    copy = target / path
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    folders.update(p for p in copy.parents if p.is_relative_to(target))
                    if path in overrides:
                        copy.write_bytes(overrides[path])
                    else:
                        shutil.copyfile(source / path, copy)
                    flush_to_disk(copy)
                for folder in folders:
                    flush_to_disk(folder)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
        return staged

    @contextmanager
    def local_copy(self, child: str) -> Iterator[Path]:
        """The child itself: it is local already."""
        yield self._root / child

    def promote(self, staged: str, number: int) -> None:
        """One rename. It cannot overwrite: the lock is held, the name was looked up, and the
        kernel refuses to rename onto a directory that holds anything.
        """
        target = self._root / str(number)
        if os.path.lexists(target):
            raise ClickparityError(
                "a version's number must be free", target, "Publish again: it takes the next one."
            )
        with _worded_for_the_operator(self.location):
            os.rename(self._root / staged, target)
            flush_to_disk(self._root)

    def remove(self, child: str) -> None:
        """Takes the name away first, so that no server ever sees half of a version."""
        doomed = self._root / child
        with _worded_for_the_operator(self.location):
            if not child.startswith(STAGING_PREFIX):
                renamed = self._root / f"{STAGING_PREFIX}{child}-{uuid.uuid4().hex[:8]}"
                os.rename(doomed, renamed)
                flush_to_disk(self._root)
                doomed = renamed
            if doomed.is_dir():
                shutil.rmtree(doomed)
            else:
                doomed.unlink()

    def remove_leftovers(self) -> None:
        """With the lock held, every staging name is a dead publisher's."""
        for child in self.children():
            if child.startswith(STAGING_PREFIX):
                self.remove(child)

    def remove_broken_versions(self) -> None:
        """There are none: a number is given by one rename of a complete version."""


def _holder(record: bytes) -> str:
    try:
        fields = json.loads(record)
        return f"process {fields['pid']} on {fields['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has the lock but has not yet written who it is
