"""One call of Arrow for a chunk of whole lines of CSV or JSON."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from pipeline.schema import CsvFormat, FeatureSchema
from pipeline.sources.block import Block
from pipeline.sources.columns import conform, separators
from pipeline.sources.json_text import parse_json

__all__ = ["Parser", "csv_parser", "json_parser"]

Parser = Callable[[bytes, int], pa.Table]
"""parser(whole lines, how many rows they are) -> table of the schema's columns; ValueError or
pyarrow.ArrowException when any row is bad."""


def csv_parser(block: Block, schema: FeatureSchema, source: CsvFormat) -> Parser:
    """A parser of delimited text with the columns of `block`; `source` is the schema's."""
    numbers = set(schema.number_columns)
    types = {c: pa.float64() if c in numbers else pa.binary() for c in schema.columns}
    convert = pa.csv.ConvertOptions(
        column_types=types,
        include_columns=list(schema.columns),
        null_values=["", *source.null_values],
        strings_can_be_null=False,
        check_utf8=False,  # checked once for the whole chunk, faster
    )
    parse = pa.csv.ParseOptions(
        delimiter=source.delimiter,
        quote_char=source.quote or False,
        newlines_in_values=source.newlines_in_values,
    )
    # An unbalanced quote swallows the rows up to the next quote, or to the end of the chunk. A last row
    # of our own is swallowed then, and the count gives it away.
    sentinel = source.delimiter.join([(source.quote or "") * 2] * len(block.columns)).encode()
    guard = sentinel + b"\n" if source.quote else b""

    def run(text: bytes, num_rows: int) -> pa.Table:
        if not source.newlines_in_values and text.count(b"\r") != text.count(b"\r\n"):
            raise ValueError("carriage return inside a line")
        data = text + guard
        read = pa.csv.ReadOptions(
            column_names=list(block.columns), use_threads=False, block_size=max(len(data), 1 << 16)
        )
        try:
            table = pa.csv.read_csv(
                pa.py_buffer(data), read_options=read, parse_options=parse, convert_options=convert
            )
        except pa.ArrowException as error:
            raise ValueError(_csv_reason(str(error), block.columns)) from None
        if table.num_rows != num_rows + bool(guard):
            raise ValueError("unbalanced quote")
        return conform(table.slice(0, num_rows), schema)

    return run


def _csv_reason(message: str, columns: tuple[str, ...]) -> str:
    """Arrow's complaint, with the column's name and without row numbers of no meaning to the user."""
    first = message.split("\n")[0]
    if found := re.search(r"Expected (\d+) columns, got (\d+)", first):
        return f"every row must have {found[1]} columns: this one has {found[2]}"
    if found := re.search(r"In CSV column #(\d+): .*invalid value '(.*)'", first):
        return f"{columns[int(found[1])]} must be a number: got {found[2]!r}"
    return re.sub(r"Row #\d+: ", "", first.removeprefix("CSV parse error: "))


def json_parser(schema: FeatureSchema) -> Parser:
    """A parser of JSON Lines.

    Arrow takes columns whose values have the types that the schema expects. Anything else (numbers
    where the schema wants text, lists, truth values) goes through Python's parser, which keeps a
    number's own digits.
    """
    numbers = set(schema.number_columns)
    types = pa.schema([(c, pa.float64() if c in numbers else pa.string()) for c in schema.columns])
    parse = pa.json.ParseOptions(explicit_schema=types, unexpected_field_behavior="ignore")
    row = functools.partial(
        _json_row, schema=schema, numbers=numbers, separators=separators(schema)
    )

    def run(text: bytes, num_rows: int) -> pa.Table:
        read = pa.json.ReadOptions(use_threads=False, block_size=max(len(text), 1 << 16))
        try:
            table = pa.json.read_json(io.BytesIO(text), read_options=read, parse_options=parse)
            if table.num_rows == num_rows:
                return conform(table, schema)
        except pa.ArrowException:
            pass
        rows = [row(line) for line in text.split(b"\n") if line not in (b"", b"\r")]
        columns = zip(*rows, strict=True)
        arrays = [pa.array(c, t) for c, t in zip(columns, _types(schema, numbers), strict=True)]
        return pa.table(arrays, names=list(schema.columns))

    return run


def _types(schema: FeatureSchema, numbers: set[str]) -> list[pa.DataType]:
    return [pa.float64() if c in numbers else pa.binary() for c in schema.columns]


def _json_row(
    line: bytes, schema: FeatureSchema, numbers: set[str], separators: dict[str, str]
) -> list[float | bytes]:
    """One JSON object as values of the schema's columns."""
    found = parse_json(line, parse_int=_Digits, parse_float=_Digits, parse_constant=_Digits)
    if not isinstance(found, dict):
        raise ValueError(f"every line must be one JSON object: got {str(found)[:80]}")
    values: list[float | bytes] = []
    for name in schema.columns:
        value = found.get(name)
        if name in numbers:
            values.append(_number(name, value))
        else:
            parts = value if isinstance(value, list) else [value]
            texts = [_text(name, part) for part in parts if part is not None]
            values.append(separators.get(name, ",").join(texts).encode())
    return values


class _Digits(str):
    """A number as it was written."""

    __slots__ = ()


def _number(name: str, value: Any) -> float:
    if value is None or value == "":
        return float("nan")
    try:
        return float(value)
    except (ValueError, TypeError):
        raise ValueError(f"{name} must be a number: got {str(value)[:80]!r}") from None


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    raise ValueError(f"{name} must be text, a number or a list of them: got {str(value)[:80]!r}")
