"""Files by path, local or remote (`gs://...`, through Beam's FileSystems, imported only when needed)."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from pipeline.errors import ConfigError

__all__ = ["InputFile", "expand_inputs", "is_remote", "local_copy", "open_for_reading"]


@dataclasses.dataclass(frozen=True)
class InputFile:
    """An input file as a run's fingerprint sees it.

    Attributes:
        path: absolute, or with its scheme.
        size: in bytes.
        version: modification time in nanoseconds, or the object store's own time stamp.
    """

    path: str
    size: int
    version: str


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether `path` has a scheme (gs://...)."""
    return "://" in str(path)


def open_for_reading(path: str) -> BinaryIO:
    """The raw bytes of a file; compression is not undone."""
    if not is_remote(path):
        return open(path, "rb")
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A local path to a file's bytes, for readers that know no Beam file system; `path` if it is local.

    A copy of a remote file lives in the directory for temporary files until the block ends.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="clickparity-") as copy:
        with open_for_reading(path) as stream:
            shutil.copyfileobj(stream, copy, 1 << 20)
        copy.flush()
        yield copy.name


def expand_inputs(patterns: Sequence[str]) -> list[InputFile]:
    """Files that match any of `patterns`, sorted by path, without repeats.

    Raises:
        ConfigError: a pattern matches nothing, names a directory, or has a scheme that is not installed.
    """
    found: dict[str, InputFile] = {}
    for pattern in patterns:
        files = _expand_remote(pattern) if is_remote(pattern) else _expand_local(pattern)
        if not files:
            raise ConfigError(
                "--input must match at least one file", repr(pattern), "Check the path or the glob."
            )
        found.update((f.path, f) for f in files)
    if not found:
        raise ConfigError("--input must name at least one file", "none")
    return [found[path] for path in sorted(found)]


def _expand_local(pattern: str) -> list[InputFile]:
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
        stat = os.stat(match)
        files.append(InputFile(os.path.abspath(match), stat.st_size, str(stat.st_mtime_ns)))
    return files


def _expand_remote(pattern: str) -> list[InputFile]:
    from apache_beam.io.filesystems import FileSystems

    try:
        (result,) = FileSystems.match([pattern])
    except ValueError:  # so Beam says that it has no file system for this scheme
        scheme = pattern.partition("://")[0]
        extra = {"gs": "gcp", "s3": "aws"}.get(scheme)
        raise ConfigError(
            "--input must be on a file system that Beam can reach",
            repr(pattern),
            f"Try: pip install 'apache-beam[{extra}]'." if extra else f"Is {scheme}:// a typo?",
        ) from None
    return [
        InputFile(m.path, m.size_in_bytes, str(m.last_updated_in_seconds))
        for m in result.metadata_list
    ]
