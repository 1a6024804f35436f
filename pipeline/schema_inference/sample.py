"""The first rows of a file whose format nobody named: format by content, columns as text.

Compressions, Parquet and TFRecord are known by their first bytes, JSON Lines by its first object, delimited
text by the delimiter that cuts every line into the same number of fields. Values are read by the rules of
`pipeline.values`, so that what is proposed is what preprocessing finds.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import itertools
import re
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.errors import DataError, reason_of
from pipeline.paths import local_copy, open_for_reading
from pipeline.schema import (
    DEFAULT_MISSING,
    CsvFormat,
    ExamplesFormat,
    JsonLinesFormat,
    ParquetFormat,
)
from pipeline.sources.decoding import DECODING_ERRORS, detect_encoding, open_text, read_some
from pipeline.sources.json_text import parse_json
from pipeline.sources.lines import bounded_lines
from pipeline.sources.parquet import flatten_records
from pipeline.sources.reading import MAX_LINE_BYTES
from pipeline.sources.text_parsers import flatten_object
from pipeline.values import ColumnRule, from_python, to_text
from pipeline.values.lists import ITEM_MARK

__all__ = ["NULL_TEXTS", "NUMBER", "Sample", "read_sample"]

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
NULL_TEXTS = tuple(text for text in DEFAULT_MISSING if text)
_DELIMITERS = (",", "\t", "|", ";", "\x01", "::")
_SNIFFED_LINES = 200
_ITEMS = ITEM_MARK
_COMMA_NUMBER = r"^[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)(,[0-9]+)?$"
_IMAGE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")
_MOST_BYTES = 256 << 20  # of text in a sample
_MAX_EXAMPLES = 20_000  # Examples are read in Python, one by one


@dataclasses.dataclass(frozen=True)
class Sample:
    """The first rows of a file.

    Attributes:
        source: the file format as a schema's `source`; without `columns` where there is no header.
        columns: by name in file order, each a string array [num_rows] with "" for missing.
        num_rows: how many rows were read.
        is_whole: whether that was the whole file.
        lists: columns whose values are typed lists, joined here with U+001F.
        images: columns of encoded images; their arrays are empty.
    """

    source: Any
    columns: dict[str, pa.Array]
    num_rows: int
    is_whole: bool
    lists: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()


def read_sample(path: str | Path, sample_rows: int) -> Sample:
    """Reads the first `sample_rows` rows of a file, whatever its format.

    Raises:
        DataError: the file is empty, or of no known format.
    """
    path = str(path)
    try:
        return _read_sample(path, sample_rows)
    except (*DECODING_ERRORS, csv.Error) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DataError(
            "a schema is inferred from a file that can be read",
            f"{path} ({type(error).__name__}: {reason_of(error)[:200]})",
            "Is the file whole? Fetch it again, or name another.",
        ) from None


def _read_sample(path: str, sample_rows: int) -> Sample:
    with open_for_reading(path) as stream:
        first = stream.read(16)
    if not first:
        raise DataError("a schema is inferred from a file with rows", f"{path}, which is empty")
    if first[:4] == b"PAR1":
        return _parquet(path, sample_rows)
    encoding = detect_encoding(path)
    with open_text(path, encoding) as stream:
        first = read_some(stream, 16, path, encoding)
    # A TFRecord starts with a 64-bit length, whose upper half is 0.
    if len(first) >= 12 and first[4:8] == b"\0\0\0\0":
        return _examples(path, sample_rows)
    with open_text(path, encoding) as text:
        bounded = bounded_lines(text, MAX_LINE_BYTES, _MOST_BYTES)
        lines = list(itertools.islice(bounded, sample_rows + 1))
    lines[:1] = [line.removeprefix(b"\xef\xbb\xbf") for line in lines[:1]]
    lines = [line for line in lines if line.strip(b"\r\n")]
    if not lines:
        raise DataError(
            "a schema is inferred from a file with rows", f"{path}, all lines empty or beyond 1 MiB"
        )
    if lines[0].lstrip().startswith(b"{"):
        return _json_lines(path, lines, sample_rows)
    return _csv(path, lines, sample_rows)


# ------------------------------------------------------------ delimited text


def _csv(path: str, lines: list[bytes], sample_rows: int) -> Sample:
    texts = [line.decode("utf-8", "replace") for line in lines[:_SNIFFED_LINES]]
    delimiter = written = _sniff_delimiter(path, texts)
    if len(delimiter) > 1:  # as one character, for readers that know no other
        delimiter = ITEM_MARK
        texts = [text.replace(written, delimiter) for text in texts]
        lines = [line.replace(written.encode(), delimiter.encode()) for line in lines]
    quote, newlines = _sniff_quote(texts, delimiter) if written == delimiter else (None, False)
    reader = csv.reader(
        io.StringIO("".join(texts)),
        delimiter=delimiter,
        quotechar=quote or '"',
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
    )
    rows = list(reader)
    header = _is_header(rows)
    names = rows[0] if header else [f"f{i + 1}" for i in range(len(rows[0]))]
    doubled = [n for n, count in collections.Counter(names).items() if count > 1]
    if doubled:
        raise DataError(
            "the columns of a header must differ", f"{doubled[0]!r} twice in {path}", "Rename one."
        )
    table = pa.csv.read_csv(
        io.BytesIO(b"".join(lines).decode("utf-8", "replace").encode()),
        read_options=pa.csv.ReadOptions(column_names=names, skip_rows=int(header)),
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter,
            quote_char=quote or False,
            newlines_in_values=newlines,
            invalid_row_handler=lambda row: "skip",
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    table = table[:sample_rows]
    columns = {name: _one(table[name]) for name in names}
    decimal, thousands = _sniff_decimal(columns, written)
    source = CsvFormat.model_construct(
        delimiter=written,
        header=header,
        columns=(),
        quote=quote,
        newlines_in_values=newlines,
        decimal=decimal,
        thousands=thousands,
    )
    return Sample(source, columns, table.num_rows, len(lines) <= sample_rows)


def _sniff_delimiter(path: str, texts: list[str]) -> str:
    """The delimiter that cuts the lines into the most fields, the same number in nearly all."""
    best, most = None, 0
    for delimiter in _DELIMITERS:
        lines_of_one = texts
        if len(delimiter) > 1:
            lines_of_one = [text.replace(delimiter, ITEM_MARK) for text in texts]
        one = delimiter if len(delimiter) == 1 else ITEM_MARK
        counts = collections.Counter(
            len(fields) for fields in csv.reader(lines_of_one, delimiter=one) if fields
        )
        fields, lines = counts.most_common(1)[0]
        if fields > max(most, 1) and lines >= 0.9 * counts.total():
            best, most = delimiter, fields
    if best is None:
        raise DataError(
            "a text file must have two columns or more, cut by a comma, tab, |, ;, :: or \\x01",
            f"{path}, whose first line is {texts[0][:80]!r}",
            "Is it a click log? Write the schema by hand if the delimiter is another.",
        )
    return best


def _sniff_decimal(
    columns: dict[str, pa.Array], delimiter: str
) -> tuple[Literal[".", ","], Literal["."] | None]:
    """(decimal point, what groups digits); the columns of numbers are rewritten with a point.

    A decimal comma is believed where no column has numbers with a point, a few have numbers with one comma,
    and the comma is not the delimiter.
    """
    if delimiter == ",":
        return ".", None
    found: dict[str, pa.Array] = {}
    thousands: Literal["."] | None = None
    for name, values in columns.items():
        present = values.filter(pc.invert(pc.is_in(values, pa.array(["", *NULL_TEXTS]))))
        if not len(present):
            continue
        if pc.all(pc.match_substring_regex(present, _COMMA_NUMBER)).as_py():
            if not pc.any(pc.match_substring(present, ",")).as_py():
                continue  # whole numbers say nothing
            if pc.any(pc.match_substring(present, ".")).as_py():
                thousands = "."
            plain = pc.replace_substring(pc.replace_substring(values, ".", ""), ",", ".")
            found[name] = plain
        elif pc.all(pc.match_substring_regex(present, NUMBER)).as_py():
            return ".", None
    if not found:
        return ".", None
    columns.update(found)
    return ",", thousands


def _sniff_quote(texts: list[str], delimiter: str) -> tuple[str | None, bool]:
    """(quote character or none, whether quoted values hold line breaks)."""
    quoted = re.compile(rf'(^|{re.escape(delimiter)})"')
    if not any(quoted.search(text) for text in texts):
        # A tab-separated file without quotes has data for quotes, as Criteo's has.
        return ('"' if delimiter == "," and not any('"' in t for t in texts) else None), False
    odd = [text.count('"') % 2 for text in texts]
    newlines = sum(odd) >= 2 and sum(odd) % 2 == 0
    return '"', newlines


def _is_header(rows: list[list[str]]) -> bool:
    """Whether the first row names the columns: no number in it, and no value that recurs below."""
    first, body = rows[0], rows[1:]
    if any(re.match(NUMBER, name) for name in first):
        return False
    if sum(not name.strip() for name in first) > 1 or not body:
        return False
    for i, name in enumerate(first):
        below = [row[i] for row in body if len(row) > i]
        if name and name in below:
            return False
    return True


# ------------------------------------------------------------ typed formats


def _parquet(path: str, sample_rows: int) -> Sample:
    import pyarrow.parquet as pq

    with open_for_reading(path) as stream:
        parquet = pq.ParquetFile(stream)
        batches, rows = [], 0
        for batch in parquet.iter_batches(batch_size=min(sample_rows, 65_536)):
            batches.append(batch)
            rows += batch.num_rows
            if rows >= sample_rows:
                break
        table = pa.Table.from_batches(batches, schema=parquet.schema_arrow)[:sample_rows]
        is_whole = parquet.metadata.num_rows <= sample_rows
    return _typed(path, ParquetFormat(), table, is_whole)


def _json_lines(path: str, lines: list[bytes], sample_rows: int) -> Sample:
    rows = []
    for line in lines[:sample_rows]:
        try:
            row = parse_json(line)
        except ValueError:
            continue  # a malformed line is a reject, later
        if isinstance(row, dict):
            rows.append(flatten_object(row))
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return _from_lists(path, JsonLinesFormat(), columns, len(rows), len(lines) <= sample_rows)


def _examples(path: str, sample_rows: int) -> Sample:
    import tensorflow as tf

    from pipeline.sources.examples import compression_of

    limit = min(sample_rows, _MAX_EXAMPLES)
    rows: list[dict[str, Any]] = []
    try:
        with local_copy(path) as file:
            for record in tf.data.TFRecordDataset(file, compression_of(file)).take(limit + 1):
                feature = tf.train.Example.FromString(record.numpy()).features.feature
                row = {}
                for name in feature:
                    kind = feature[name].WhichOneof("kind")
                    found = list(getattr(feature[name], kind).value) if kind else []
                    row[name] = found[0] if len(found) == 1 else found or None
                rows.append(row)
    except Exception as error:  # protobuf's DecodeError has no stable import path
        raise DataError(
            "a TFRecord file must hold whole tf.Example records",
            f"{path} ({type(error).__name__})",
            "Packed records are clickparity's own; infer from the raw log instead.",
        ) from None
    names = sorted({name for row in rows for name in row})
    columns = {name: [row.get(name) for row in rows[:limit]] for name in names}
    num_rows = min(len(rows), limit)
    return _from_lists(path, ExamplesFormat(), columns, num_rows, len(rows) <= limit)


def _from_lists(
    path: str, source: Any, columns: dict[str, list[Any]], num_rows: int, is_whole: bool
) -> Sample:
    if not num_rows:
        raise DataError("a schema is inferred from a file with rows", f"{path}, none readable")
    texts, lists, images = {}, set(), set()
    for name, values in columns.items():
        if any(isinstance(v, bytes) and v.startswith(_IMAGE_MAGIC) for v in values[:100]):
            images.add(name)
        if any(isinstance(v, list) for v in values):
            lists.add(name)
        texts[name] = pa.array([], pa.string()) if name in images else _texts(name, values)
    return Sample(source, texts, num_rows, is_whole, frozenset(lists), frozenset(images))


def _texts(name: str, values: list[Any]) -> pa.Array:
    """A column of Python values as texts; what has no reading is missing here and a reject later."""
    rule = ColumnRule("list" if any(isinstance(v, list) for v in values) else "text", _ITEMS)
    try:
        return _readable(from_python(values, rule))
    except (ValueError, pa.ArrowException):
        return _readable(pa.concat_arrays([_text_or_missing(v, rule) for v in values]))


def _text_or_missing(value: Any, rule: ColumnRule) -> pa.Array:
    try:
        return from_python([value], rule)
    except (ValueError, pa.ArrowException):
        return pa.array([b""], pa.binary())


def _readable(texts: pa.Array) -> pa.Array:
    """Binary as string, bytes that are not UTF-8 replaced."""
    try:
        return texts.cast(pa.string())
    except pa.ArrowInvalid:
        plain = [t.decode("utf-8", "replace") for t in texts.to_pylist()]
        return pa.array(plain, pa.string())


def _typed(path: str, source: Any, table: pa.Table, is_whole: bool) -> Sample:
    if not table.num_rows:
        raise DataError("a schema is inferred from a file with rows", f"{path}, 0 rows")
    texts, lists, images = {}, set(), set()
    table = flatten_records(table)
    for name in table.column_names:
        column, kind = _one(table[name]), table[name].type
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        if pa.types.is_nested(kind):
            lists.add(name)
        elif _holds_images(column):
            images.add(name)
            texts[name] = pa.array([], pa.string())
            continue
        try:
            texts[name] = _readable(
                to_text(column, ColumnRule("list" if name in lists else "text", _ITEMS))
            )
        except (ValueError, pa.ArrowException):
            texts[name] = _texts(name, column.to_pylist())
    return Sample(source, texts, table.num_rows, is_whole, frozenset(lists), frozenset(images))


def _holds_images(column: pa.Array) -> bool:
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return False
    return any(v.startswith(_IMAGE_MAGIC) for v in column[:100].to_pylist() if v)


def _one(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
