"""File formats that a schema may name."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = [
    "DEFAULT_MISSING",
    "CsvFormat",
    "ExamplesFormat",
    "FileFormat",
    "Frozen",
    "JsonLinesFormat",
    "ParquetFormat",
    "expand_range",
]

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")  # I{1..13}
_MOST_NAMES = 100_000


DEFAULT_MISSING = ("", "\\N", "NULL", "null", "NaN", "nan", "-nan", "NA", "N/A", "<NA>", "None")
"""What "missing" is written as unless a schema says otherwise (Hive, SQL, pandas, R, Python)."""


def missing_texts(value: Any) -> Any:
    """Null markers as YAML gives them (-1, null, 'NA') -> texts; for a validator."""
    if not isinstance(value, (list, tuple)):
        return value  # for pydantic to refuse
    plain = [v for v in value if v is None or isinstance(v, (str, int, float))]
    if len(plain) < len(value):
        return value
    return tuple("" if v is None else str(v) for v in value)


class Frozen(BaseModel):
    """What every part of a schema is: immutable, and without fields that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def expand_range(name: str) -> list[str]:
    """`I{1..3}` -> [I1, I2, I3]; anything else -> [name].

    Raises:
        ValueError: the range is empty, or longer than any file is wide.
    """
    found = _RANGE.search(name)
    if not found:
        return [name]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST_NAMES:
        raise ValueError(f"a range {{first..last}} needs first <= last; got {name!r}")
    before, after = name[: found.start()], expand_range(name[found.end() :])
    return [f"{before}{i}{rest}" for i in range(first, last + 1) for rest in after]


class CsvFormat(Frozen):
    """Delimited text, one row a line. Compression, byte order mark and line ends are found in the file.

    Attributes:
        delimiter: one ASCII character, or several (`::`); several go without a quote character.
        header: whether the first line of each file names its columns; if not, `columns` does.
        columns: the columns of a file without a header; `I{1..13}` stands for I1 ... I13.
        quote: the quote character, or none (Criteo-like files: an unbalanced quote is data there).
        newlines_in_values: quoted values may hold line breaks; such a file cannot be split.
        null_values: more texts that mean "missing", besides the schema's `missing`.
        decimal: the decimal point of numbers, "." or ",".
        thousands: what groups the digits of numbers in threes, if anything does.
    """

    kind: Literal["csv"] = "csv"
    delimiter: str = Field(",", min_length=1, max_length=8)
    header: bool = True
    columns: tuple[str, ...] = ()
    quote: str | None = Field('"', max_length=1)
    newlines_in_values: bool = False
    null_values: tuple[str, ...] = ()
    decimal: Literal[".", ","] = "."
    thousands: Literal[".", ",", " ", "'", "_", "\u00a0", "\u202f"] | None = None

    @field_validator("columns", mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value  # for pydantic to refuse
        return tuple(n for c in value for n in expand_range(str(c)))

    @field_validator("quote")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @model_validator(mode="before")
    @classmethod
    def _no_quote_beside_a_long_delimiter(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and len(str(raw.get("delimiter", ","))) > 1:
            return {"quote": None, **raw}
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> CsvFormat:
        for name, text in (("delimiter", self.delimiter), ("quote", self.quote or "'")):
            if not text.isascii() or set(text) & set("\r\n\0"):
                raise ValueError(f"{name} must be ASCII, without a line break; got {text!r}")
        if len(self.delimiter) > 1 and self.quote:
            raise ValueError(
                f"a delimiter of several characters goes without `quote`; got {self.delimiter!r}"
            )
        if self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands must differ; got {self.decimal!r} for both")
        if self.delimiter == self.quote:
            raise ValueError(f"delimiter and quote must differ; got {self.delimiter!r} for both")
        if not self.header and not self.columns:
            raise ValueError("a file without a header needs `columns`")
        doubled = sorted({c for c in self.columns if self.columns.count(c) > 1})
        if doubled:
            raise ValueError(f"column names must differ; got {', '.join(doubled)} twice")
        if self.newlines_in_values and not self.quote:
            raise ValueError("newlines_in_values needs a quote character")
        return self


class ParquetFormat(Frozen):
    """Parquet files, split by row group."""

    kind: Literal["parquet"] = "parquet"


class JsonLinesFormat(Frozen):
    """One JSON object a line; an absent key is a missing value."""

    kind: Literal["jsonl"] = "jsonl"


class ExamplesFormat(Frozen):
    """TFRecord files of `tf.Example`; an absent feature is a missing value."""

    kind: Literal["examples"] = "examples"


FileFormat = Annotated[
    CsvFormat | ParquetFormat | JsonLinesFormat | ExamplesFormat, Field(discriminator="kind")
]
