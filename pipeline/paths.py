"""Files by path, local or remote (`gs://...`, through Beam's FileSystems, imported only when needed)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["is_remote", "local_copy", "open_for_reading"]


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
