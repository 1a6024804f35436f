# ruff: noqa: E501 (the cells of a table are long)
"""The table of rules: what each kind of value becomes, with examples that the tests run through every door.

python -m pipeline.values.table > docs/values.md
"""

from __future__ import annotations

import dataclasses
import datetime
from decimal import Decimal
from typing import Any, Literal

from pipeline.schema.formats import DEFAULT_MISSING
from pipeline.schema.time_format import EPOCH_SCALE, EPOCH_YEARS

__all__ = ["MISSING", "REFUSED", "RULES", "Example", "ValueRule", "markdown"]

MISSING = "(missing)"
REFUSED = "(refused)"
Door = Literal["text", "json", "arrow"]


@dataclasses.dataclass(frozen=True)
class Example:
    """One value at one door.

    Attributes:
        door: `text` (a cell of a text file, a JSON string, bytes of a tf.Example, a request), `json` (the
            literal in a JSON line) or `arrow` (a Parquet column, a caller's column).
        written: the text, the literal, or (Arrow's name of the type, the value).
        text: what it is as a categorical value (as an id); `MISSING` or `REFUSED`.
        number: what it is as a number; None where the example is of texts only.
    """

    door: Door
    written: Any
    text: str
    number: float | str | None = None


@dataclasses.dataclass(frozen=True)
class ValueRule:
    """What one kind of value becomes."""

    kind: str
    as_text: str
    as_number: str
    examples: tuple[Example, ...]


def _text(written: str, text: str, number: float | str | None = None) -> Example:
    return Example("text", written, text, number)


def _json(written: str, text: str, number: float | str | None = None) -> Example:
    return Example("json", written, text, number)


def _arrow(kind: str, value: Any, text: str, number: float | str | None = None) -> Example:
    return Example("arrow", (kind, value), text, number)


RULES: tuple[ValueRule, ...] = (
    ValueRule(
        "nothing",
        "missing: null, NaN, the empty text, an absent key, and every marker in the schema's `missing`",
        "missing, for the same reasons; a marker that is a number is compared by value (as float32)",
        (
            _text("", MISSING, MISSING),
            *(_text(marker, MISSING, MISSING) for marker in DEFAULT_MISSING if marker),
            _text("none", "none", REFUSED),
            _text("-1", "-1", -1.0),
            _json("null", MISSING, MISSING),
            _json("NaN", MISSING, MISSING),
            _json('"NULL"', MISSING, MISSING),
            _arrow("double", None, MISSING, MISSING),
            _arrow("double", float("nan"), MISSING, MISSING),
            _arrow("null", None, MISSING, MISSING),
        ),
    ),
    ValueRule(
        "text",
        "as it is written, to the byte: `012`, `12` and `12.0` are three ids",
        "a decimal number; blanks around it do not count; anything else is refused",
        (
            _text("012", "012", 12.0),
            _text("12.0", "12.0", 12.0),
            _text(" 2.5 ", " 2.5 ", 2.5),
            _text("1e3", "1e3", 1000.0),
            _text("twelve", "twelve", REFUSED),
            _text("1,5", "1,5", REFUSED),
            _json('"012"', "012", 12.0),
            _arrow("string", "풍선", "풍선", REFUSED),
        ),
    ),
    ValueRule(
        "boolean",
        "`true` or `false`; texts spelled `True`, `TRUE`, `False`, `FALSE` are the same two",
        "1 or 0",
        (
            _text("True", "true", 1.0),
            _text("FALSE", "false", 0.0),
            _text("true", "true", 1.0),
            _text("tRuE", "tRuE", REFUSED),
            _json("true", "true", 1.0),
            _arrow("bool", False, "false", 0.0),
        ),
    ),
    ValueRule(
        "integer",
        "its decimal digits, of any length",
        "the nearest double",
        (
            _json("10000000002", "10000000002", 10000000002.0),
            _json("18446744073709551616", "18446744073709551616", 18446744073709551616.0),
            _json("-7", "-7", -7.0),
            _arrow("int64", 2**63 - 1, "9223372036854775807", 2.0**63),
            _arrow("uint8", 200, "200", 200.0),
        ),
    ),
    ValueRule(
        "double, float",
        "a whole number as an integer; others with the fewest digits that read back, without an exponent. "
        "Refused: an infinite one, and whole numbers that the type rounds (2^53 on for a double, 2^24 on for "
        "a float)",
        "itself; infinite counts as missing in the model",
        (
            _json("1e11", "100000000000", 1e11),
            _json("12.0", "12", 12.0),
            _json("1.50", "1.5", 1.5),
            _json("1e17", REFUSED, 1e17),
            _json("Infinity", REFUSED, float("inf")),
            _arrow("double", 10000000002.0, "10000000002", 10000000002.0),
            _arrow("double", -0.0, "0", 0.0),
            _arrow("double", 1e-7, "0.0000001", 1e-7),
            _arrow("double", 2.0**53 - 1, "9007199254740991", 2.0**53 - 1),
            _arrow("double", 2.0**53, REFUSED, 2.0**53),
            _arrow("float", 0.5, "0.5", 0.5),
            _arrow("float", 16777216.0, REFUSED, 16777216.0),
        ),
    ),
    ValueRule(
        "decimal",
        "without trailing zeros: 12.00 is `12`, 12.50 is `12.5`",
        "the nearest double",
        (
            _arrow("decimal128(10, 2)", Decimal("12.00"), "12", 12.0),
            _arrow("decimal128(10, 2)", Decimal("12.50"), "12.5", 12.5),
            _arrow("decimal128(20, 10)", Decimal("-0.0000001"), "-0.0000001", -1e-7),
            _arrow("decimal128(38, 0)", Decimal(10) ** 20, "100000000000000000000", 1e20),
        ),
    ),
    ValueRule(
        "date, time stamp",
        "`2014-10-21`; `2014-10-21 00:59:59`, with a fraction where it has one, on the clock of its own zone. "
        "In a datetime feature it is written as the feature's `format` writes it, so that its type decides "
        "and not its format",
        "refused",
        (
            _arrow("date32[day]", datetime.date(2014, 10, 21), "2014-10-21", REFUSED),
            _arrow("timestamp[us]", datetime.datetime(2014, 10, 21, 0, 59, 59), "2014-10-21 00:59:59", REFUSED),
            _arrow("timestamp[ms]", datetime.datetime(2014, 10, 21, 0, 59, 59, 500000),
                   "2014-10-21 00:59:59.5", REFUSED),
        ),
    ),
    ValueRule(
        "list",
        "in a sequence feature: its items, each by these rules, null and empty ones left out; an item may "
        "hold the separator. Elsewhere the items joined with a comma",
        "refused",
        (
            _json('["a", "b"]', "a,b", REFUSED),
            _json('[1, 2.0, null, true]', "1,2,true", REFUSED),
            _arrow("list<item: int32>", [1, 2], "1,2", REFUSED),
        ),
    ),
    ValueRule(
        "record (struct, nested object)",
        "refused; its fields are columns: `device.os`",
        "refused; its fields are columns",
        (_json('{"os": "x"}', REFUSED, REFUSED),),
    ),
)  # fmt: skip


_PROSE = [
    "## Missing values",
    "",
    "One setting says what is written for a missing value, for every kind of feature: `missing` of the "
    "schema, or of one feature where its column differs. The default is "
    + ", ".join(f"`{m}`" if m else "the empty text" for m in DEFAULT_MISSING)
    + ". `-1` or `none` is a value unless the schema lists it:",
    "",
    "```yaml",
    "missing: ['', NA, '-1']",
    "features:",
    "  - {name: country, kind: categorical, missing: ['']}  # NA is Namibia",
    "```",
    "",
    "## Lists written as text",
    "",
    "The text of a sequence feature is cut at its `separator`; spaces around an item, empty items and null "
    "markers are dropped. Square brackets around the whole are understood, and inside them quotes: "
    "`[21, 24]` holds 21 and 24, `['a', 'b, c']` holds `a` and `b, c`. A typed list (a Parquet list, a JSON "
    "array, several values in a `tf.Example`) is never cut: where its text could not be told from another "
    "list, each item is written with U+001F before it, which the model understands. A single byte string "
    "in a `tf.Example` is a text, and so may hold a list.",
    "",
    "## Times",
    "",
    "A datetime feature's `format` says how texts and plain numbers are read: "
    + ", ".join(f"`{name}`" for name in EPOCH_SCALE)
    + ", `iso`, or a pattern. Dates and time stamps are read by their type. A pattern and `iso` show the "
    "clock as written (the zone is not applied), an epoch is UTC. An epoch outside the years "
    f"{EPOCH_YEARS[0]} to {EPOCH_YEARS[1]} does not fit: it is of another unit. Values that do not fit are "
    "missing for the model; `clickparity stats` counts them, and `preprocess` refuses (exit 4) more than "
    "`preprocess.max_misfit_rate` of them, naming the format that they seem to have.",
    "",
    "## Text files",
    "",
    "UTF-8 (with or without a byte order mark) and UTF-16 with one; line ends LF, CR LF or CR; plain or "
    "compressed with gzip, bzip2, zstd or xz: all found in the file. The schema's `source` says the rest: "
    "`delimiter` (several characters too, `::`), `decimal: ','`, `thousands: '.'` (digits that are not "
    "grouped in threes are refused, not guessed).",
    "",
]  # fmt: skip
"""What the page says beside its tables."""


def markdown() -> str:
    """docs/values.md."""
    lines = [
        "# How a value is read",
        "",
        "<!-- Written by `python -m pipeline.values.table`; do not edit. -->",
        "",
        "What a file or a request says about one value becomes one text (an id) or one number, by the rules "
        "of this page. The same rules hold in `preprocess`, `schema infer`, `score`, `predict`, the client and "
        "the exported model, for text files, JSON Lines, Parquet, TFRecord files of `tf.Example` and requests. "
        "A value that has no reading makes its row a reject with a reason; it never becomes another value.",
        "",
        "| what it is | as a text (categorical, cross, split key) | as a number (numeric, label, weight) |",
        "|---|---|---|",
        *(f"| {rule.kind} | {rule.as_text} | {rule.as_number} |" for rule in RULES),
        "",
        *_PROSE,
        "## Examples",
        "",
        "| written | at | as a text | as a number |",
        "|---|---|---|---|",
        *(_line(example) for rule in RULES for example in rule.examples),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _line(example: Example) -> str:
    written = example.written
    at = {"text": "text", "json": "JSON", "arrow": "typed"}[example.door]
    if example.door == "arrow":
        at, written = f"typed, {written[0]}", written[1]
    number = "" if example.number is None else example.number
    shown = f"`{written}`" if str(written) else "(empty)"
    text = example.text if example.text in (MISSING, REFUSED) else f"`{example.text}`"
    return f"| {shown} | {at} | {text} | {number} |"


if __name__ == "__main__":
    print(markdown(), end="")
