"""A piece of an input file that one worker reads."""

from __future__ import annotations

import dataclasses

__all__ = ["Block"]


@dataclasses.dataclass(frozen=True)
class Block:
    """A piece of an input file that one worker reads.

    Attributes:
        index: position among all blocks of the job.
        path: the file.
        start, end: byte range of text (a row belongs to the block in which it starts; `end` is -1 for
            "to the end", used for files that cannot be split), or row groups of Parquet.
        columns: the columns of this file, in file order; empty when the format names them itself.
        gzip: the file is gzip-compressed text.
    """

    index: int
    path: str
    start: int
    end: int
    columns: tuple[str, ...] = ()
    gzip: bool = False
