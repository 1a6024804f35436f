"""Lines of a stream within bounds: nobody holds a line that is longer than a row may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["bounded_lines", "next_line"]

_PIECE = 1 << 20


def next_line(stream: BinaryIO, position: int, end: int) -> int:
    """Reads on from the middle of a line to where the next one starts, or to `end`.

    Args:
        stream: stands at `position`; stands at the answer afterwards.
        position: in bytes.
        end: how far anybody looks: a line that starts beyond it is another block's.
    """
    while position < end:
        piece = stream.readline(min(end - position, _PIECE))
        position += len(piece)
        if not piece or piece.endswith(b"\n"):
            break
    return position


def bounded_lines(stream: BinaryIO, most_bytes: int, all_bytes: int) -> Iterator[bytes]:
    """Lines with their ends; those longer than `most_bytes` are left out, and nothing is read beyond
    `all_bytes`, whatever the stream holds.
    """
    read = 0
    while read < all_bytes:
        line = stream.readline(most_bytes + 2)
        if not line:
            return
        read += len(line)
        if line.endswith(b"\n") or len(line) <= most_bytes:
            yield line
        else:
            read = next_line(stream, read, all_bytes)
