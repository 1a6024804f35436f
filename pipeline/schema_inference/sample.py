"""The first rows of a file whose format nobody named: format by content, columns as text.

gzip, Parquet and TFRecord are told by their first bytes, JSON Lines by its first object, delimited text
by the delimiter that cuts every line into the same number of fields.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import gzip
import io
import itertools
import json
import re
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.errors import DataError
from pipeline.paths import local_copy, open_for_reading
from pipeline.schema import CsvFormat, ExamplesFormat, JsonLinesFormat, ParquetFormat
from pipeline.sources.json_text import parse_json

__all__ = ["NULL_TEXTS", "NUMBER", "Sample", "read_sample"]

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
NULL_TEXTS = ("NULL", "null", "NA", "N/A", "nan", "NaN", "None", "none", "\\N", "-nan", "<NA>")
_DELIMITERS = (",", "\t", "|", ";", "\x01")
_SNIFFED_LINES = 200
_IMAGE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")
_MAX_EXAMPLES = 20_000  # Examples are read in Python, one by one


@dataclasses.dataclass(frozen=True)
class Sample:
    """The first rows of a file.

    Attributes:
        source: the file format as a schema's `source`; without `columns` where there is no header.
        columns: by name in file order, each a string array [num_rows] with "" for missing.
        num_rows: how many rows were read.
        is_whole: whether that was the whole file.
        lists: columns whose values are lists, joined here with ",".
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
    except (EOFError, OSError, ValueError, csv.Error, zlib.error, pa.ArrowException) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DataError(
            "a schema is inferred from a file that can be read",
            f"{path} ({type(error).__name__}: {str(error).splitlines()[0][:200]})",
            "Is the file whole? Fetch it again, or name another.",
        ) from None


def _read_sample(path: str, sample_rows: int) -> Sample:
    with open_for_reading(path) as stream:
        first = stream.read(16)
    if not first:
        raise DataError("a schema is inferred from a file with rows", f"{path}, which is empty")
    if first[:4] == b"PAR1":
        return _parquet(path, sample_rows)
    packed = first[:2] == b"\x1f\x8b"
    if packed:
        with open_for_reading(path) as raw, gzip.GzipFile(fileobj=raw) as unpacked:
            first = unpacked.read(16)
    # A TFRecord starts with a 64-bit length, whose upper half is 0.
    if len(first) >= 12 and first[4:8] == b"\0\0\0\0":
        return _examples(path, sample_rows)
    with open_for_reading(path) as raw:
        lines_of: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        lines = list(itertools.islice(lines_of, sample_rows + 1))
    lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
    lines = [line for line in lines if line.strip(b"\r\n")]
    if not lines:
        raise DataError("a schema is inferred from a file with rows", f"{path}, all lines empty")
    if lines[0].lstrip().startswith(b"{"):
        return _json_lines(path, lines, sample_rows)
    return _csv(path, lines, sample_rows)


# ------------------------------------------------------------ delimited text


def _csv(path: str, lines: list[bytes], sample_rows: int) -> Sample:
    texts = [line.decode("utf-8", "replace") for line in lines[:_SNIFFED_LINES]]
    delimiter = _sniff_delimiter(path, texts)
    quote, newlines = _sniff_quote(texts, delimiter)
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
    source = CsvFormat.model_construct(
        delimiter=delimiter, header=header, columns=(), quote=quote, newlines_in_values=newlines
    )
    columns = {name: _one(table[name]) for name in names}
    return Sample(source, columns, table.num_rows, len(lines) <= sample_rows)


def _sniff_delimiter(path: str, texts: list[str]) -> str:
    """The delimiter that cuts the lines into the most fields, the same number in nearly all."""
    best, most = None, 0
    for delimiter in _DELIMITERS:
        counts = collections.Counter(
            len(fields) for fields in csv.reader(texts, delimiter=delimiter) if fields
        )
        fields, lines = counts.most_common(1)[0]
        if fields > max(most, 1) and lines >= 0.9 * counts.total():
            best, most = delimiter, fields
    if best is None:
        raise DataError(
            "a text file must have two columns or more, cut by a comma, tab, |, ; or \\x01",
            f"{path}, whose first line is {texts[0][:80]!r}",
            "Is it a click log? Write the schema by hand if the delimiter is another.",
        )
    return best


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
            rows.append(row)
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
        texts[name] = pa.array([] if name in images else [_text(v) for v in values], pa.string())
    return Sample(source, texts, num_rows, is_whole, frozenset(lists), frozenset(images))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_text(v) for v in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _typed(path: str, source: Any, table: pa.Table, is_whole: bool) -> Sample:
    if not table.num_rows:
        raise DataError("a schema is inferred from a file with rows", f"{path}, 0 rows")
    texts, lists, images = {}, set(), set()
    for name in table.column_names:
        column, kind = _one(table[name]), table[name].type
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        if pa.types.is_nested(kind):
            lists.add(name)
            column = pa.array([_text(v) for v in column.to_pylist()], pa.string())
        elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            values = column.to_pylist()
            if any(v.startswith(_IMAGE_MAGIC) for v in values[:100] if v):
                images.add(name)
                column = pa.array([], pa.string())
            else:
                column = pa.array([_text(v) for v in values], pa.string())
        elif pa.types.is_timestamp(kind):
            column = pc.strftime(column, format="%Y-%m-%d %H:%M:%S")
        texts[name] = pc.fill_null(column.cast(pa.string()), "")
    return Sample(source, texts, table.num_rows, is_whole, frozenset(lists), frozenset(images))


def _one(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
