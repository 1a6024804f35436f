"""Cutting input files into blocks: byte ranges of text, row groups of Parquet, whole files otherwise.

Blocks depend on the files alone, never on how many workers there are: the position of a row
(block, row in block) is what its split, its shuffle and its sampling are derived from.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
from collections.abc import Sequence

from pipeline.errors import ClickparityError, ConfigError, DataError
from pipeline.input_listing import InputFile, InputListing, check_unchanged, partition_values
from pipeline.paths import open_for_reading
from pipeline.schema import CsvFormat, ExamplesFormat, FeatureSchema, JsonLinesFormat, ParquetFormat
from pipeline.sources.block import Block
from pipeline.sources.decoding import DECODING_ERRORS, TextEncoding, detect_encoding, open_text
from pipeline.sources.json_text import parse_json
from pipeline.sources.parquet import parquet_columns
from pipeline.sources.text_parsers import flatten_object

__all__ = ["DEFAULT_BLOCK_BYTES", "InputPlan", "plan_blocks"]

DEFAULT_BLOCK_BYTES = 8 << 20
_HEADER_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class InputPlan:
    """What a job reads: the schema resolved against the files, the files, and their blocks."""

    schema: FeatureSchema
    listing: InputListing
    blocks: tuple[Block, ...]


def plan_blocks(
    schema: FeatureSchema, listing: InputListing, *, block_bytes: int = DEFAULT_BLOCK_BYTES
) -> InputPlan:
    """Resolves the schema against the files' columns and cuts the files.

    Raises:
        ConfigError: a file lacks a column of the schema.
        DataError: every file is empty, one cannot be read as its format, or changed since it was listed.
    """
    files = listing.files
    blocks: list[Block] = []
    resolved: FeatureSchema | None = None
    for file in files:
        if not file.size:
            continue
        try:
            columns, pieces, encoding = _cut(schema, file, block_bytes)
        except DECODING_ERRORS as error:
            check_unchanged(file)  # perhaps it is being written
            if isinstance(error, ClickparityError):
                raise
            raise DataError(
                f"{file.path} must be readable as {schema.source.kind}",
                f"{type(error).__name__}: {error}",
                "Repair or remove the file, or correct `source` in the schema.",
            ) from None
        constants = _constants(schema, file.path, columns)
        try:
            this = schema.resolve([*columns, *(c for c in constants if c not in columns)])
        except ConfigError as error:
            raise ConfigError(f"{file.path}: {error.rule}", error.received, error.remedy) from None
        if resolved is not None and this != resolved:
            raise ConfigError(
                "all files must give the schema's patterns the same columns",
                f"{file.path} differs from {files[0].path}",
                "Preprocess them apart, or list the features without patterns.",
            )
        resolved = this
        in_text = columns if isinstance(schema.source, CsvFormat) else ()
        for start, end in pieces:
            given = tuple(constants.items())
            blocks.append(Block(len(blocks), file, start, end, tuple(in_text), encoding, given))
    if resolved is None:
        raise DataError(
            "the input must have rows", f"{len(files)} empty file(s), {files[0].path} first"
        )
    return InputPlan(resolved, listing, tuple(blocks))


def _constants(schema: FeatureSchema, path: str, columns: Sequence[str]) -> dict[str, str]:
    """Columns that the schema names, the file may lack, and its folders give a value."""
    # Each row of these has columns of its own.
    by_row = isinstance(schema.source, (JsonLinesFormat, ExamplesFormat))
    return {
        column: value
        for column, value in partition_values(path).items()
        if column in schema.columns and (by_row or column not in columns)
    }


def _cut(
    schema: FeatureSchema, file: InputFile, block_bytes: int
) -> tuple[list[str], list[tuple[int, int]], TextEncoding]:
    """(columns, pieces, encoding) of one file."""
    source = schema.source
    if isinstance(source, ParquetFormat):
        import pyarrow.parquet as pq

        with open_for_reading(file.path) as stream:
            parquet = pq.ParquetFile(stream)
            names = parquet_columns(parquet.schema_arrow)
            return names, [(i, i + 1) for i in range(parquet.num_row_groups)], TextEncoding()
    if isinstance(source, ExamplesFormat):
        from pipeline.sources.examples import example_columns

        return example_columns(schema, file.path), [(0, -1)], TextEncoding()
    encoding = detect_encoding(file.path)
    first, header_end = _first_line(file.path, encoding)
    start = 0
    if isinstance(source, JsonLinesFormat):
        columns = _json_columns(schema, first)
    elif source.header:
        columns, start = _split_line(first, source), header_end
    else:
        columns = list(source.columns)
    if not encoding.is_plain or (isinstance(source, CsvFormat) and source.newlines_in_values):
        return columns, [(start, -1)], encoding
    cuts = [*range(start, max(file.size, start + 1), block_bytes), max(file.size, start)]
    return columns, [(a, b) for a, b in itertools.pairwise(cuts) if b > a], encoding


def _first_line(path: str, encoding: TextEncoding) -> tuple[bytes, int]:
    """The first line without its line break, and where the next one starts."""
    with open_text(path, encoding) as stream:
        line = stream.readline(_HEADER_BYTES)
    return line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n"), len(line)


def _split_line(line: bytes, source: CsvFormat) -> list[str]:
    text = line.decode("utf-8")
    if source.quote is None:
        return text.split(source.delimiter)
    reader = csv.reader(io.StringIO(text), delimiter=source.delimiter, quotechar=source.quote)
    return next(reader, [])


def _json_columns(schema: FeatureSchema, first: bytes) -> list[str]:
    """Columns that may occur: those of the first object, and all that the schema names plainly."""
    try:
        found = parse_json(first)
        keys = list(flatten_object(found)) if isinstance(found, dict) else []
    except ValueError:
        keys = []  # a malformed first line is a reject like any other
    return list(dict.fromkeys([*keys, *(c for c in schema.columns if "*" not in c)]))
