"""Text files as UTF-8 lines, whatever they are: compression, charset and line ends are found in the file."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import dataclasses
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.paths import open_for_reading

__all__ = ["DECODING_ERRORS", "TextEncoding", "detect_encoding", "open_text", "read_some"]

DECODING_ERRORS = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""What reading a damaged file raises."""

_HEAD_BYTES = 1 << 20
_HEAD_PIECE = 1 << 10  # little is lost where a file ends before its time
_PIECE = 1 << 20
_MAGIC = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "zstd": b"\x28\xb5\x2f\xfd",
    "xz": b"\xfd7zXZ\0",
}
_ARCHIVES = {"zip": b"PK\x03\x04", "7z": b"7z\xbc\xaf\x27\x1c", "rar": b"Rar!\x1a\x07"}


@dataclasses.dataclass(frozen=True)
class TextEncoding:
    """How the lines of a text file are stored.

    Attributes:
        compression: gzip, bzip2, zstd or xz; empty for none.
        charset: "utf-8" or "utf-16" (with a byte order mark).
        carriage_returns: lines end with CR alone.
    """

    compression: str = ""
    charset: str = "utf-8"
    carriage_returns: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the bytes are the lines themselves, so that the file can be cut anywhere."""
        return self == TextEncoding()


def detect_encoding(path: str) -> TextEncoding:
    """Looks at the head of a file.

    Raises:
        DataError: an archive of files.
        OSError: it cannot be read.
    """
    with open_for_reading(path) as raw:
        head = raw.read(16)
    for kind, magic in _ARCHIVES.items():
        if head.startswith(magic):
            raise DataError(
                "a text file must be plain or compressed by itself",
                f"{path}, a {kind} archive",
                "Unpack it and name the files in it; gzip, bzip2, zstd and xz files are read as they are.",
            )
    compression = next((name for name, magic in _MAGIC.items() if head.startswith(magic)), "")
    if compression == "bzip2" and head[4:10] not in (b"1AY&SY", b"\x17rE8P\x90"):
        compression = ""  # a text that begins with BZh
    found = TextEncoding(compression)
    head = _head(path, found)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        found = dataclasses.replace(found, charset="utf-16")
        head = _head(path, found)
    return dataclasses.replace(found, carriage_returns=b"\r" in head and b"\n" not in head)


def _head(path: str, encoding: TextEncoding) -> bytes:
    """The first bytes as they can be unpacked; damage is a matter of whoever reads on."""
    head = b""
    with contextlib.suppress(*DECODING_ERRORS), open_text(path, encoding) as stream:
        while len(head) < _HEAD_BYTES and (piece := stream.read(_HEAD_PIECE)):
            head += piece
    return head


def read_some(stream: BinaryIO, size: int, path: str, encoding: TextEncoding) -> bytes:
    """The next `size` bytes of an opened text.

    Raises:
        DataError: the file is damaged: how many of its rows are lost cannot be told.
        OSError: a plain file cannot be read.
    """
    if encoding.is_plain:
        return stream.read(size)
    try:
        return stream.read(size)
    except DECODING_ERRORS as error:
        raise DataError(
            f"{path} must be a whole {encoding.compression or encoding.charset.upper()} file",
            f"{type(error).__name__}: {error}",
            "Fetch the file again; how many rows are missing cannot be known.",
        ) from None


@contextlib.contextmanager
def open_text(path: str, encoding: TextEncoding) -> Iterator[BinaryIO]:
    """The file as UTF-8 with LF or CR LF at the ends of its lines."""
    with _opened(path, encoding) as stream:
        if encoding.charset == "utf-8" and not encoding.carriage_returns:
            yield stream
        else:
            yield io.BufferedReader(_Transcoded(stream, encoding), _PIECE)


@contextlib.contextmanager
def _opened(path: str, encoding: TextEncoding) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked."""
    with open_for_reading(path) as raw:
        if encoding.compression == "zstd":
            with pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd") as unpacked:
                yield io.BufferedReader(_Readable(unpacked), _PIECE)
            return
        opener: Any = {"gzip": gzip.GzipFile, "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile}
        if encoding.compression:
            kind = opener[encoding.compression]
            stream = kind(fileobj=raw) if encoding.compression == "gzip" else kind(raw)
            with stream:
                yield stream
        else:
            yield raw


class _Readable(io.RawIOBase):
    """An Arrow stream as Python reads."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As `RawIOBase.readinto`."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Transcoded(io.RawIOBase):
    """Bytes of another charset or with other line ends, as UTF-8 lines."""

    def __init__(self, stream: BinaryIO, encoding: TextEncoding) -> None:
        self._stream, self._encoding = stream, encoding
        self._decoder = codecs.getincrementaldecoder(encoding.charset)()
        self._left = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As `RawIOBase.readinto`."""
        while not self._left:
            data = self._stream.read(_PIECE)
            if self._encoding.charset == "utf-8":
                self._left = data  # broken UTF-8 is a matter of the line it is in
            else:
                self._left = self._decoder.decode(data, final=not data).encode("utf-8")
            if self._encoding.carriage_returns:
                self._left = self._left.replace(b"\r", b"\n")
            if not data:
                break
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size
