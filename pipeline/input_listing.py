"""The input files of a job, listed once: patterns are expanded at the door and the list is handed on.

A folder stands for the files in it, at any depth. What other tools leave beside data (hidden files,
`_SUCCESS`, `_metadata`, `*.crc`) is left out there, and of what a glob matches; so is a second way to
a file that is listed already (a link `latest`). What was left out is said, once. A file that is named in
full is always taken.

Who reads a file holds it against the list, so that what was fingerprinted, planned and read is one and
the same. Remote files (`gs://...`) are listed through Beam's FileSystems, imported only when needed.
"""

from __future__ import annotations

import dataclasses
import glob
import logging
import os
import re
import urllib.parse
from collections.abc import Sequence
from typing import Any

from pipeline.errors import ConfigError, DataError
from pipeline.paths import is_remote, reachable

__all__ = ["InputFile", "InputListing", "check_unchanged", "list_inputs", "partition_values"]

_LOG = logging.getLogger(__name__)
_ASIDE = "hidden files and what other tools leave beside data"
_TWICE = "a second way to a file that is listed"
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_SHOWN = 5  # paths in a line


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


def partition_values(path: str) -> dict[str, str]:
    """{"dt": "2024-01-01"} of logs/dt=2024-01-01/part-0.csv, as Hive and Spark write folders."""
    parts = [part.partition("=") for part in path.split("/")[:-1]]
    return {
        urllib.parse.unquote(key): "" if value == _NO_VALUE else urllib.parse.unquote(value)
        for key, equals, value in parts
        if key and equals
    }


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
        ConfigError: a pattern matches no data file, or has a scheme that is not installed.
    """
    if isinstance(patterns, InputListing):
        return patterns
    found: dict[str, InputFile] = {}
    left_out: dict[str, str] = {}  # path -> why
    for pattern in patterns:
        listed = (
            _list_remote(pattern, left_out)
            if is_remote(pattern)
            else _list_local(pattern, left_out)
        )
        if not listed:
            aside = [path for path, why in left_out.items() if why != _TWICE]
            also = f"; left out: {_shortened(aside)}" if aside else ""
            raise ConfigError(
                "--input must match at least one file",
                f"{pattern!r}{also}",
                "Check the path or the glob; a file that is named in full is always taken.",
            )
        found.update((f.path, f) for f in listed)
    if not found:
        raise ConfigError("--input must name at least one file", "none")
    files = _each_once(found, left_out)
    for why in dict.fromkeys(left_out.values()):
        paths = [path for path in left_out if left_out[path] == why]
        _LOG.info("input: %s, left out: %s", why, _shortened(paths))
    return InputListing(tuple(files))


def _shortened(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
    return ", ".join(sorted(paths)[:_SHOWN]) + more


def _each_once(found: dict[str, InputFile], left_out: dict[str, str]) -> list[InputFile]:
    """The files sorted by path; of several ways to one file the one that is no link."""
    ways: dict[str, list[str]] = {}
    for path in sorted(found):
        ways.setdefault(path if is_remote(path) else os.path.realpath(path), []).append(path)
    chosen = []
    for real, paths in ways.items():
        own = real if real in paths else paths[0]
        chosen.append(own)
        left_out.update((path, _TWICE) for path in paths if path != own)
    return [found[path] for path in sorted(chosen)]


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


def _list_local(pattern: str, left_out: dict[str, str]) -> list[InputFile]:
    if os.path.isfile(pattern):  # named in full, whatever it is called
        matches = [pattern]
    elif os.path.isdir(pattern):
        matches = _files_below(pattern, left_out)
    else:
        matches = []
        for match in sorted(glob.glob(pattern, recursive=True)):
            if _all_data(match, pattern, left_out):  # `dir/**` matches the folders on the way, too
                matches += _files_below(match, left_out) if os.path.isdir(match) else [match]
    found = {match: _local_file(match) for match in dict.fromkeys(matches)}
    left_out.update(
        (match, "gone, or a link to nothing") for match, f in found.items() if f is None
    )
    return [file for file in found.values() if file is not None]


def _files_below(folder: str, left_out: dict[str, str]) -> list[str]:
    """The data files of a folder, at any depth; links to folders are followed, to each folder once."""
    found, seen = [], set[str]()
    for here, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if _is_data(os.path.join(here, f), f, left_out))
        found += [p for n in sorted(names) if _is_data(p := os.path.join(here, n), n, left_out)]
    return found


def _all_data(path: str, pattern: str, left_out: dict[str, str]) -> bool:
    """Whether every name that the pattern left open is one of data."""
    fixed = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0]
    names = [name for name in path[len(fixed) :].split("/") if name]
    return all(_is_data(path, name, left_out) for name in names)


def _is_data(path: str, name: str, left_out: dict[str, str]) -> bool:
    """Whether other tools would read it: `_dt=1` is a folder of a partition, `_temporary` is none."""
    if name.startswith(".") or name.endswith(".crc") or (name.startswith("_") and "=" not in name):
        left_out[path] = _ASIDE
        return False
    return True


def _local_file(path: str) -> InputFile | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    identity = (stat.st_ino, stat.st_ctime_ns)
    return InputFile(os.path.abspath(path), stat.st_size, str(stat.st_mtime_ns), identity)


def _list_remote(pattern: str, left_out: dict[str, str]) -> list[InputFile]:
    from apache_beam.io.filesystems import FileSystems

    is_glob = glob.has_magic(pattern)
    with reachable(pattern, "--input"):
        (result,) = FileSystems.match([pattern])
        if not is_glob and not result.metadata_list:  # a folder
            pattern, is_glob = f"{pattern.rstrip('/')}/**", True
            (result,) = FileSystems.match([pattern])
    return [
        _of_metadata(metadata)
        for metadata in result.metadata_list
        if not is_glob or _all_data(metadata.path, pattern, left_out)
    ]


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
