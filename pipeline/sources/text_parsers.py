"""One call of Arrow for a chunk of whole lines of CSV or JSON."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from pipeline.schema import CsvFormat, FeatureSchema
from pipeline.sources.block import Block
from pipeline.sources.json_text import parse_json
from pipeline.sources.parquet import flatten_records
from pipeline.values import ColumnRule, column_rules, conform, from_python, naming_column

__all__ = ["Parser", "csv_parser", "flatten_object", "json_parser"]

Parser = Callable[[bytes, int], pa.Table]
"""parser(whole lines, how many rows they are) -> table of the schema's columns; ValueError or
pyarrow.ArrowException when any row is bad."""

_UNUSED = ("\x1f", "\x1e", "\x1d", "\x1c", "\x02", "\x03", "\x04")
"""What a delimiter of several characters is replaced by: one of these that the text does not hold."""


# ------------------------------------------------------------------------------------- delimited text


def csv_parser(block: Block, schema: FeatureSchema, source: CsvFormat) -> Parser:
    """A parser of delimited text with the columns of `block`; `source` is the schema's.

    Arrow reads numbers itself. Where that fails (a boolean in a numeric column, grouped digits) the same
    columns are read as texts and converted by the rules of `pipeline.values`.
    """
    rules = column_rules(schema)
    numbers = [c for c in schema.columns if rules[c].kind == "number"]
    markers = rules[numbers[0]].markers if numbers else ()
    native = {c for c in numbers if rules[c].markers == markers and source.thousands is None}
    nulls = ["", *markers, *source.null_values]
    read = _CsvReader(block, source, rules, nulls)

    def run(text: bytes, num_rows: int) -> pa.Table:
        if not source.newlines_in_values and text.count(b"\r") != text.count(b"\r\n"):
            raise ValueError("carriage return inside a line")
        try:
            table = read(text, num_rows, native)
        except _NotANumberError:
            table = read(text, num_rows, set())
        return conform(table, rules)

    return run


class _NotANumberError(ValueError):
    """Arrow could not read a value as a number."""


class _CsvReader:
    """Lines of text -> a table whose number columns are float64 or plain decimal texts."""

    def __init__(
        self, block: Block, source: CsvFormat, rules: dict[str, ColumnRule], nulls: list[str]
    ) -> None:
        self._source, self._rules, self._nulls = source, rules, nulls
        self._in_file, self._wanted = list(block.columns), list(rules)
        self._lacks_some = bool(block.constants)

    def __call__(self, text: bytes, num_rows: int, native: set[str]) -> pa.Table:
        """Reads `num_rows` rows; the columns of `native` as float64.

        Raises:
            _NotANumberError: one of them holds something else.
            ValueError: a row does not have the columns, or a quote is not closed.
        """
        source = self._source
        delimiter = source.delimiter
        if len(delimiter) > 1:
            delimiter = _unused_in(text)
            text = text.replace(source.delimiter.encode(), delimiter.encode())
        convert = pa.csv.ConvertOptions(
            column_types={c: pa.float64() if c in native else pa.binary() for c in self._wanted},
            include_columns=self._wanted,
            include_missing_columns=self._lacks_some,
            null_values=self._nulls,
            strings_can_be_null=False,
            check_utf8=False,  # checked once for the whole chunk, faster
            decimal_point=source.decimal,
        )
        parse = pa.csv.ParseOptions(
            delimiter=delimiter,
            quote_char=source.quote or False,
            newlines_in_values=source.newlines_in_values,
        )
        # An unbalanced quote swallows the rows up to the next quote, or to the end of the chunk. A last
        # row of our own is swallowed then, and the count gives it away.
        sentinel = delimiter.join([(source.quote or "") * 2] * len(self._in_file)).encode()
        data = text + (sentinel + b"\n" if source.quote else b"")
        read = pa.csv.ReadOptions(
            column_names=self._in_file, use_threads=False, block_size=max(len(data), 1 << 16)
        )
        try:
            table = pa.csv.read_csv(
                pa.py_buffer(data), read_options=read, parse_options=parse, convert_options=convert
            )
        except pa.ArrowException as error:
            if native and "In CSV column #" in str(error):
                raise _NotANumberError(str(error)) from None
            raise ValueError(_csv_reason(str(error))) from None
        if table.num_rows != num_rows + bool(source.quote):
            raise ValueError("unbalanced quote")
        return self._plain(table.slice(0, num_rows), native)

    def _plain(self, table: pa.Table, native: set[str]) -> pa.Table:
        """Number columns that are still texts, with a point and without groups."""
        source = self._source
        if source.decimal == "." and source.thousands is None:
            return table
        for place, name in enumerate(table.column_names):
            rule = self._rules[name]
            if rule.kind == "number" and name not in native:
                with naming_column(name, rule):
                    table = table.set_column(place, name, _plain_numbers(table[name], source))
        return table


def _unused_in(text: bytes) -> str:
    free = next((c for c in _UNUSED if c.encode() not in text), None)
    if free is None:
        raise ValueError("control characters beside a delimiter of several characters")
    return free


def _plain_numbers(column: pa.ChunkedArray, source: CsvFormat) -> pa.ChunkedArray:
    """Numbers like `1.234,5` as `1234.5`.

    Raises:
        ValueError: digits are grouped in other ways than by threes, or the point is another.
    """
    texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
    point, group = re.escape(source.decimal), source.thousands
    foreign = "." if source.decimal == "," and group != "." else None
    if group is not None:
        grouped = rf"^[+-]?[0-9]{{1,3}}(?:{re.escape(group)}[0-9]{{3}})+(?:{point}[0-9]*)?$"
        whole = pc.match_substring_regex(texts, grouped)
        odd = pc.and_(pc.match_substring(texts, group), pc.invert(whole))
        _refuse_any(texts, odd)
        texts = pc.replace_substring(texts, group, "")
    _refuse_any(texts, pc.match_substring_regex(texts, f"{point}.*{point}"))
    if foreign is not None:
        _refuse_any(texts, pc.match_substring(texts, foreign))
    return pc.replace_substring(texts, source.decimal, ".")


def _refuse_any(texts: pa.ChunkedArray, refused: pa.ChunkedArray) -> None:
    if pc.any(refused).as_py():
        raise ValueError(f"got {texts.filter(refused)[0].as_py()[:80]!r}")


def _csv_reason(message: str) -> str:
    """Arrow's complaint, without row numbers of no meaning to the user."""
    first = message.split("\n")[0]
    if found := re.search(r"Expected (\d+) columns, got (\d+)", first):
        return f"every row must have {found[1]} columns: this one has {found[2]}"
    return re.sub(r"Row #\d+: ", "", first.removeprefix("CSV parse error: "))


# ------------------------------------------------------------------------------------- JSON Lines


def json_parser(schema: FeatureSchema) -> Parser:
    """A parser of JSON Lines.

    Arrow takes columns whose values have the types that the schema expects. Anything else (numbers
    where the schema wants text, lists, truth values) goes through Python's parser, which keeps integers
    of any size.
    """
    rules = column_rules(schema)

    def run(text: bytes, num_rows: int) -> pa.Table:
        types = _json_types(text, schema.columns, rules)
        if types is not None:
            parse = pa.json.ParseOptions(explicit_schema=types, unexpected_field_behavior="ignore")
            read = pa.json.ReadOptions(use_threads=False, block_size=max(len(text), 1 << 16))
            try:
                table = pa.json.read_json(io.BytesIO(text), read_options=read, parse_options=parse)
                if table.num_rows == num_rows:
                    return conform(flatten_records(table), rules)
            except pa.ArrowException:
                pass
        rows = [_json_object(line) for line in text.split(b"\n") if line not in (b"", b"\r")]
        arrays = []
        for name, rule in rules.items():
            with naming_column(name, rule):
                arrays.append(from_python([_field(row, name) for row in rows], rule))
        return pa.table(arrays, names=list(rules))

    return run


def _json_types(
    text: bytes, columns: Sequence[str], rules: dict[str, ColumnRule]
) -> pa.Schema | None:
    """What Arrow is to read each column as, `device.os` as a field of `device`; None: not by Arrow."""
    tree: dict[str, Any] = {}
    for name in columns:
        kind = pa.float64() if rules[name].kind == "number" else pa.string()
        if "." in name and json.dumps(name).encode() in text:
            return None  # a key with a point, in some rows or in all
        *path, last = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                return None  # a column of its own, and a record
        if last in place:
            return None
        place[last] = kind
    return pa.schema(_fields(tree))


def _fields(tree: dict[str, Any]) -> list[pa.Field]:
    return [
        pa.field(name, pa.struct(_fields(kind)) if isinstance(kind, dict) else kind)
        for name, kind in tree.items()
    ]


def _json_object(line: bytes) -> dict[str, Any]:
    found = parse_json(line)
    if not isinstance(found, dict):
        raise ValueError(f"every line must be one JSON object: got {str(found)[:80]}")
    return found


def _field(row: dict[str, Any], name: str) -> Any:
    """A value by its key, or by its path through nested objects."""
    if name in row or "." not in name:
        return row.get(name)
    place: Any = row
    for part in name.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def flatten_object(found: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"device": {"os": 1}} -> {"device.os": 1}."""
    flat: dict[str, Any] = {}
    for key, value in found.items():
        name = f"{prefix}{key}"
        flat.update(flatten_object(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat
