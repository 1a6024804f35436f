"""A Beam file system in memory, as an object store: `mem://bucket/object`, no directories, no rename of many.

What works here assumes neither a local path nor POSIX. Importing it registers the scheme.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from apache_beam.io.filesystem import (
    BeamIOError,
    CompressionTypes,
    FileMetadata,
    FileSystem,
)

OBJECTS: dict[str, bytes] = {}
OPENED: list[str] = []


class _Writer(io.BytesIO):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def close(self) -> None:
        """The object appears whole, as in an object store."""
        if not self.closed:
            OBJECTS[self._path] = self.getvalue()
        super().close()


class MemoryFileSystem(FileSystem):
    """Objects by their whole address."""

    @classmethod
    def scheme(cls) -> str:
        return "mem"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *(p.strip("/") for p in paths)])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        """An object store has none."""

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path in sorted(OBJECTS):
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def create(self, path: str, mime_type: str = "", compression_type: str = "") -> Any:
        return _Writer(path)

    def open(self, path: str, mime_type: str = "", compression_type: str = "auto") -> Any:
        assert compression_type == CompressionTypes.UNCOMPRESSED, "bytes as they are stored"
        if path not in OBJECTS:
            raise BeamIOError("no such object", {path: FileNotFoundError(path)})
        OPENED.append(path)
        return io.BufferedReader(io.BytesIO(OBJECTS[path]))  # type: ignore[arg-type]

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, goal in zip(source_file_names, destination_file_names, strict=True):
            OBJECTS[goal] = OBJECTS[source]

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        raise BeamIOError("an object store has no rename")

    def exists(self, path: str) -> bool:
        return path in OBJECTS

    def size(self, path: str) -> int:
        return len(OBJECTS[path])

    def last_updated(self, path: str) -> float:
        return 0.0

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, len(OBJECTS[path]), 1.0)

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            for found in [o for o in OBJECTS if o == path or o.startswith(path.rstrip("/") + "/")]:
                del OBJECTS[found]
