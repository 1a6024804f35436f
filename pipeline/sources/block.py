"""A piece of an input file that one worker reads."""

from __future__ import annotations

import dataclasses

from pipeline.input_listing import InputFile, check_unchanged
from pipeline.paths import is_remote
from pipeline.sources.decoding import TextEncoding

__all__ = ["Block"]


@dataclasses.dataclass(frozen=True)
class Block:
    """A piece of an input file that one worker reads.

    Attributes:
        index: position among all blocks of the job.
        file: the file, as it was listed.
        start, end: byte range of text (a row belongs to the block in which it starts; `end` is -1 for
            "to the end", used for files that cannot be split), or row groups of Parquet.
        columns: the columns of this file, in file order; empty when the format names them itself.
        encoding: how a text file stores its lines.
        constants: (column, value) that hold for every row of the file: its folder's `dt=2024-01-01`.
    """

    index: int
    file: InputFile
    start: int
    end: int
    columns: tuple[str, ...] = ()
    encoding: TextEncoding = TextEncoding()
    constants: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> str:
        """Of the file."""
        return self.file.path

    def check_unchanged(self) -> None:
        """Holds a local file against the listing: before a block is read, and when it was read.

        A remote one is asked for once, when the job ends (`InputListing.check_unchanged`): that is a
        request over the network.

        Raises:
            DataError: it changed, was replaced, or vanished.
        """
        if not is_remote(self.file.path):
            check_unchanged(self.file)
