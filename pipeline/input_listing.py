"""The input files of a job, listed once: patterns are expanded at the door and the list is handed on.

Who reads a file holds it against the list, so that what was fingerprinted, planned and read is one and
the same. Remote files (`gs://...`) are listed through Beam's FileSystems, imported only when needed.
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Sequence
from typing import Any

from pipeline.errors import ConfigError, DataError
from pipeline.paths import is_remote, reachable

__all__ = ["InputFile", "InputListing", "check_unchanged", "list_inputs"]


@dataclasses.dataclass(frozen=True)
class InputFile:
    """An input file as it was when it was listed.

    Attributes:
        path: absolute, or with its scheme.
        size: in bytes.
        version: modification time in nanoseconds, or the object store's own time stamp.
        identity: of a local file, (inode, time of the inode's last change in ns): a file that was written
            to and had its old modification time restored, or was replaced by another one of the same
            size, has another. No part of a fingerprint: a copy elsewhere has another too.
    """

    path: str
    size: int
    version: str
    identity: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class InputListing:
    """The files that match some patterns, sorted by path, without repeats; see `list_inputs`."""

    files: tuple[InputFile, ...]

    @property
    def fingerprint_parts(self) -> list[list[str | int]]:
        """What a fingerprint covers of them."""
        return [[f.path, f.size, f.version] for f in self.files]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)

    def check_unchanged(self) -> None:
        """Holds every file against what it was when it was listed; for the end of a job.

        Raises:
            DataError: one changed or vanished.
        """
        for file in self.files:
            check_unchanged(file)


def list_inputs(patterns: Sequence[str] | InputListing) -> InputListing:
    """The files that match any of `patterns`; a listing is given back as it is.

    Raises:
        ConfigError: a pattern matches nothing, names a directory, or has a scheme that is not installed.
    """
    if isinstance(patterns, InputListing):
        return patterns
    found: dict[str, InputFile] = {}
    for pattern in patterns:
        files = _list_remote(pattern) if is_remote(pattern) else _list_local(pattern)
        if not files:
            raise ConfigError(
                "--input must match at least one file", repr(pattern), "Check the path or the glob."
            )
        found.update((f.path, f) for f in files)
    if not found:
        raise ConfigError("--input must name at least one file", "none")
    return InputListing(tuple(found[path] for path in sorted(found)))


def check_unchanged(file: InputFile) -> None:
    """Holds a file against what it was when it was listed.

    Raises:
        DataError: it changed, was replaced, or vanished; the message names both.
    """
    now = _remote_file(file.path) if is_remote(file.path) else _local_file(file.path)
    if now == file:
        return
    raise DataError(
        "an input file must stay as it is while it is read",
        f"{file.path}: listed with {_described(file)}, now {_described(now)}",
        "Run again when nobody writes to it.",
    )


def _described(file: InputFile | None) -> str:
    if file is None:
        return "gone"
    inode = f", inode {file.identity[0]}, changed {file.identity[1]}" if file.identity else ""
    return f"{file.size:,} bytes, modified {file.version}{inode}"


def _list_local(pattern: str) -> list[InputFile]:
    matches = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    files = []
    for match in matches:
        if os.path.isdir(match):
            if match == pattern:
                raise ConfigError(
                    "--input must name files",
                    f"the directory {match}",
                    f"Try {match.rstrip('/')}/*.",
                )
            continue
        found = _local_file(match)
        if found is not None:  # else it is a dangling link, or was deleted since
            files.append(found)
    return files


def _local_file(path: str) -> InputFile | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    identity = (stat.st_ino, stat.st_ctime_ns)
    return InputFile(os.path.abspath(path), stat.st_size, str(stat.st_mtime_ns), identity)


def _list_remote(pattern: str) -> list[InputFile]:
    from apache_beam.io.filesystems import FileSystems

    with reachable(pattern, "--input"):
        (result,) = FileSystems.match([pattern])
    return [_of_metadata(metadata) for metadata in result.metadata_list]


def _remote_file(path: str) -> InputFile | None:
    """By its exact name, which may hold what is special in a pattern."""
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems

    try:
        return _of_metadata(FileSystems.get_filesystem(path).metadata(path))
    except BeamIOError:
        if FileSystems.exists(path):
            raise
        return None


def _of_metadata(metadata: Any) -> InputFile:
    return InputFile(metadata.path, metadata.size_in_bytes, str(metadata.last_updated_in_seconds))
