"""Text files -> rows: cutting at line breaks, parsing a chunk in one call, cutting on failure.

Only when the call for a whole chunk fails is the chunk cut, first into pieces and then into halves,
until the offending lines stand alone: good rows are never lost to a bad neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from pipeline.errors import reason_of
from pipeline.paths import open_for_reading
from pipeline.schema import CsvFormat, FeatureSchema
from pipeline.sources.block import Block
from pipeline.sources.blocks import DEFAULT_BLOCK_BYTES
from pipeline.sources.chunk import Parsed, Reject, empty_table
from pipeline.sources.decoding import open_text, read_some
from pipeline.sources.lines import next_line
from pipeline.sources.text_parsers import csv_parser, json_parser

__all__ = ["read_text"]

_PIECE_ROWS = 256
_MOST_HELD = 16 << 20  # bytes of a line that nobody will use
_BOM = b"\xef\xbb\xbf"


def read_text(
    block: Block, schema: FeatureSchema, max_line_bytes: int, chunk_bytes: int | None = None
) -> Iterator[Parsed]:
    """The rows of a block of CSV or JSON Lines, a chunk at a time; see `read_block`."""
    source = schema.source
    quote = source.quote if isinstance(source, CsvFormat) and source.newlines_in_values else None
    parse = (
        csv_parser(block, schema, source) if isinstance(source, CsvFormat) else json_parser(schema)
    )
    for offset, data in _chunks(block, quote, chunk_bytes):
        parser = _ChunkParser(block.path, offset, data, quote, parse, max_line_bytes)
        if parser.num_rows:
            yield parser.run(schema)


class _ChunkParser:
    """Finds the rows of one chunk of text and parses them."""

    def __init__(
        self,
        path: str,
        offset: int,
        data: bytes,
        quote: str | None,
        parse: Callable[[bytes, int], pa.Table],
        max_line_bytes: int,
    ) -> None:
        self._path, self._offset, self._data = path, offset, data
        self._parse, self._max_line_bytes = parse, max_line_bytes
        breaks = _row_breaks(data, quote)
        starts = np.concatenate([[0], breaks + 1])
        ends = np.concatenate([breaks, [len(data)]])
        length = ends - starts
        buffer = np.frombuffer(data, dtype=np.uint8)
        blank = (length == 0) | ((length == 1) & (buffer[np.minimum(starts, len(data) - 1)] == 13))
        self._starts, self._ends = starts[~blank], ends[~blank]
        self.num_rows = len(self._starts)
        self._tables: list[pa.Table] = []
        self._good: list[np.ndarray] = []
        self._rejects: list[Reject] = []

    def run(self, schema: FeatureSchema) -> Parsed:
        """Every row, parsed or rejected."""
        self._rows(0, self.num_rows)
        good = np.concatenate(self._good or [np.zeros(0, np.int64)])
        starts, ends = self._starts[good], self._ends[good]
        return Parsed(
            pa.concat_tables(self._tables or [empty_table(schema)]),
            good,
            self.num_rows,
            self._rejects,
            self._offset + starts,
            self._data,
            starts,
            ends,
        )

    def _rows(self, low: int, high: int) -> None:
        """Parses rows [low, high), cutting on failure."""
        start, end = int(self._starts[low]), int(self._ends[high - 1])
        text = self._data[start:end]
        try:
            longest = int((self._ends[low:high] - self._starts[low:high]).max())
            if longest > self._max_line_bytes:
                raise ValueError(f"line longer than {self._max_line_bytes} bytes: {longest}")
            if b"\0" in text:
                raise ValueError(f"NUL byte: at byte {text.index(0)}")
            text.decode("utf-8")
            self._tables.append(self._parse(text + b"\n", high - low))
        except (ValueError, pa.ArrowException) as error:
            if high - low == 1:
                raw = text.removesuffix(b"\r")
                self._rejects.append(Reject(self._path, self._offset + start, _plain(error), raw))
                return
            step = _PIECE_ROWS if high - low > _PIECE_ROWS else -(-(high - low) // 2)
            for at in range(low, high, step):
                self._rows(at, min(at + step, high))
            return
        self._good.append(np.arange(low, high))


def _plain(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte {error.object[error.start]:#04x} at {error.start}"
    return reason_of(error)[:300]


def _row_breaks(data: bytes, quote: str | None) -> np.ndarray:
    """Where rows end; with a quote character, a line break inside quotes ends none."""
    buffer = np.frombuffer(data, dtype=np.uint8)
    breaks = np.flatnonzero(buffer == 10)
    if quote is None:
        return breaks
    quotes = np.flatnonzero(buffer == ord(quote))
    return breaks[np.searchsorted(quotes, breaks) % 2 == 0]


def _chunks(
    block: Block, quote: str | None, chunk_bytes: int | None
) -> Iterator[tuple[int, bytes]]:
    """(offset, whole rows) of the block: the rows that start in [start, end).

    Of a row that is longer than `_MOST_HELD` its beginning, which is rejected as too long.
    """
    if block.end < 0:
        yield from _stream_chunks(block, quote)
        return
    with open_for_reading(block.path) as raw:
        # A row belongs to the block in which it starts. Unless the byte before `start` ends a line (or
        # the block opens the file), the first piece is the tail of a row of the block before.
        raw.seek(max(block.start - 1, 0))
        inside_a_row = block.start > 0 and raw.read(1) != b"\n"
        raw.seek(block.start)
        position = next_line(raw, block.start, block.end) if inside_a_row else block.start
        while position < block.end:
            left = block.end - position
            data = raw.read(min(chunk_bytes or left, left))
            if not data.endswith(b"\n"):
                data += raw.readline(_MOST_HELD)
            mark = len(_BOM) if position == 0 and data.startswith(_BOM) else 0
            if data[mark:]:
                yield position + mark, data[mark:]
            if not data:
                return  # the file has become shorter
            position += len(data)
            if not data.endswith(b"\n"):
                position = next_line(raw, position, block.end)


def _stream_chunks(block: Block, quote: str | None) -> Iterator[tuple[int, bytes]]:
    """Whole rows of a file that cannot be split, a few MB at a time."""
    path, encoding = block.path, block.encoding
    with open_text(path, encoding) as stream:
        offset, rest = block.start, b""
        if block.start:
            read_some(stream, block.start, path, encoding)  # the header
        elif (head := read_some(stream, len(_BOM), path, encoding)) == _BOM:
            offset = len(_BOM)
        else:
            rest = head
        while data := read_some(stream, DEFAULT_BLOCK_BYTES, path, encoding):
            data = rest + data
            breaks = _row_breaks(data, quote)
            cut = int(breaks[-1]) + 1 if len(breaks) else 0
            if cut:
                yield offset, data[:cut]
            offset, rest = offset + cut, data[cut:]
            if len(rest) > _MOST_HELD:
                yield offset, rest
                offset, rest = _after_row(
                    lambda size: read_some(stream, size, path, encoding), offset, rest, quote
                )
        if rest:
            yield offset, rest


def _after_row(
    read: Callable[[int], bytes], offset: int, data: bytes, quote: str | None
) -> tuple[int, bytes]:
    """Reads past the end of the row that `data` begins, which nobody keeps: what follows, and its offset."""
    quotes = 0
    while data:
        ends = _row_breaks((quote or "").encode() * (quotes % 2) + data, quote)
        if len(ends):
            cut = int(ends[0]) + 1 - (quotes % 2 if quote else 0)
            return offset + cut, data[cut:]
        quotes += data.count(quote.encode()) if quote else 0
        offset += len(data)
        data = read(DEFAULT_BLOCK_BYTES)
    return offset, b""
