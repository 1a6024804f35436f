"""Files by path, local or remote (`gs://...`, through Beam's FileSystems, imported only when needed).

A path is parsed once, at the door: into a `Path`, or into a `RemotePath`, which nobody can take for a
local folder by mistake.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import ClickparityError, ConfigError, reason_of

__all__ = [
    "RemotePath",
    "is_remote",
    "local_copy",
    "local_path",
    "open_for_reading",
    "parse_path",
    "reachable",
    "scheme_of",
]

# One slash is enough: `Path("gs://bucket")` has one left. A single letter is a drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_EXTRAS = {"gs": "gcp", "s3": "aws", "hdfs": "hadoop", "azfs": "azure", "https": "azure"}


@dataclasses.dataclass(frozen=True)
class RemotePath:
    """An address in a store: no `os.PathLike`, so that no function of a file system takes it.

    Attributes:
        address: as it was given, such as gs://bucket/models.
    """

    address: str

    @property
    def scheme(self) -> str:
        """What kind of store: gs, s3, ..."""
        return scheme_of(self.address)

    def __str__(self) -> str:
        return self.address


def scheme_of(path: str | os.PathLike[str]) -> str:
    """The gs of gs://bucket/x, in lower case; the empty text for a local path."""
    found = _SCHEME.match(str(path))
    return found[1].lower() if found else ""


def parse_path(
    path: str | os.PathLike[str] | RemotePath, what: str, *, schemes: tuple[str, ...] = ()
) -> Path | RemotePath:
    """A path as a type that knows where it lies.

    Args:
        path: as somebody wrote it.
        what: how messages call it ("--models").
        schemes: what is supported beside local paths.

    Raises:
        ConfigError: empty, or on a store that is not supported here.
    """
    text, scheme = str(path), scheme_of(str(path))
    if not text.strip() or "\0" in text:
        raise ConfigError(f"{what} must be a path", repr(text))
    if not scheme:
        return Path(text)
    if scheme not in schemes:
        allowed = " or ".join(["a local path", *(f"a {s}:// address" for s in schemes)])
        remedy = (
            "Write the path alone, without file://."
            if scheme == "file"
            else "Use a local path, and copy from or to the store apart from it."
        )
        raise ConfigError(f"{what} must be {allowed}", repr(text), remedy)
    return RemotePath(text)


def local_path(path: str | os.PathLike[str], what: str) -> Path:
    """A path of this machine.

    Raises:
        ConfigError: empty, or with a scheme.
    """
    return Path(str(parse_path(path, what)))


@contextlib.contextmanager
def reachable(path: str, what: str) -> Iterator[None]:
    """Words what Beam's file systems raise where a store cannot be used from here.

    Args:
        path: with its scheme.
        what: how messages call it ("--input").

    Raises:
        ConfigError: no file system is installed for the scheme, or it cannot be set up.
        ClickparityError: the store cannot be reached (exit 1: a retry may help).
    """
    try:
        yield
    except ClickparityError:
        raise
    except Exception as error:
        scheme = scheme_of(path)
        extra = _EXTRAS.get(scheme)
        said = reason_of(error)[:300]
        missing = ("Unable to get filesystem", "Failed to import", "Must provide one of client")
        if any(m in str(error) for m in missing) or isinstance(error, ImportError):
            raise ConfigError(
                f"{what} must be on a file system that Beam can reach",
                repr(path),
                f"Try: pip install 'apache-beam[{extra}]'." if extra else f"Is {scheme}:// a typo?",
            ) from None
        raise ClickparityError(
            f"{what} must be reachable from here",
            f"{path} ({said})",
            "Check the address, the credentials and the network; for hdfs:// also --hdfs_host, "
            "--hdfs_port and --hdfs_user. Or copy the files to a local folder first.",
        ) from error


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
