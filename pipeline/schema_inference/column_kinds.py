"""What kind of feature a column is, told by its name and by the values of a sample.

Names come first: they say what values cannot (is this integer a count or an id?). Then shape: counts
start near zero and lie densely there, ids do not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema.time_format import EPOCH_SCALE
from pipeline.schema_inference.sample import NULL_TEXTS, NUMBER, Sample
from pipeline.values import ColumnRule, list_items, parse_time, to_number
from pipeline.values.lists import BRACKETED, ITEM_MARK

__all__ = ["CARRIED", "Column", "decide", "is_binary", "profile"]

CARRIED = "carried beside the rows: by its name it must not be a model input"
_CARRIED = re.compile(r"propensity|probab", re.I)
_LEAKING = re.compile(
    r"(^|_)(ctr|cvr|winner|won|significance|first_place|conversions?|converted|revenue|"
    r"attributed|dwell)(_|$)",
    re.I,
)
# The last word of a name that either matches decides: item_count is a number, age_group is not.
_ID_WORD = re.compile(
    r"ids?|uuid|guid|code|type|cat|category|site|app|device|banner|pos|position|gender|sex|group|"
    r"hour|day|dow|weekday|week|month|region|zip|country|city|lang|language|os|browser|ip|hash|tag|"
    r"slot|domain|model|item|user|ad|adset|campaign|advertiser|publisher|inventory|channel|brand"
)
_NUMBER_WORD = re.compile(
    r"count|cnt|num|price|amount|score|rate|ratio|avg|mean|sum|total|age|duration|length|size|bid|"
    r"cost|affinity|freq|frequency|history|days|seconds"
)
_TIME_NAME = re.compile(r"time|date|hour|day|(^|_)ts($|_)", re.I)
_MOST_LABELS = 16  # spellings of two values, and some junk
_NEWEST_LAST = re.compile(r"seq|hist|log|recent|last", re.I)
_IMAGE_PATH = r"(?i)\.(png|jpe?g|gif|bmp)$"
_SEPARATORS = ("|", ";", ",", " ")
_TIME_FORMATS = ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d%H", "%Y%m%d", "%y%m%d%H", "%y%m%d")
_YEARS = (946_684_800, 4_102_444_800)  # 2000 to 2100, in seconds since 1970


@dataclasses.dataclass
class Column:
    """What the sample says about one column; values are texts, each once."""

    name: str
    values: pa.Array
    counts: np.ndarray
    codes: np.ndarray  # int64 [rows] into `values`; -1 missing
    nulls: set[str]
    is_list: bool

    @property
    def missing(self) -> float:
        """Share of the rows without a value."""
        return float((self.codes < 0).mean())

    def all_match(self, pattern: str) -> bool:
        """Whether every value matches a regular expression."""
        return bool(pc.all(pc.match_substring_regex(self.values, pattern)).as_py())

    def numbers(self) -> np.ndarray:
        """The distinct values as float64."""
        return np.asarray(pc.cast(self.values, pa.float64()))


def label_numbers(column: Column) -> np.ndarray:
    """The distinct values of a label as numbers, True as 1, NaN for what is no number; float64.

    Empty where they are more than a label has.
    """
    if len(column.values) > _MOST_LABELS:
        return np.zeros(0)
    numbers = np.full(len(column.values), np.nan)
    for i in range(len(numbers)):
        with contextlib.suppress(ValueError, pa.ArrowException):
            numbers[i] = to_number(column.values[i : i + 1])[0].as_py()
    return numbers


def is_binary(column: Column) -> bool:
    """Whether the values are 0 and 1; a few that are neither will be rejects (a header in the middle)."""
    numbers = label_numbers(column)
    known = np.isin(numbers, (0.0, 1.0))
    if set(numbers[known].tolist()) != {0.0, 1.0}:
        return False
    return bool(column.counts[~known].sum() <= 0.01 * column.counts.sum())


def profile(name: str, values: pa.Array, is_list: bool) -> Column:
    """Counts the values of one column of a sample: string [rows], "" or a null's text = missing."""
    coded = pc.dictionary_encode(values)
    texts = coded.dictionary
    absent = np.asarray(pc.or_(pc.equal(texts, ""), pc.is_in(texts, pa.array(NULL_TEXTS))))
    nulls = set(texts.filter(pa.array(absent)).to_pylist()) - {""}
    new = np.where(absent, -1, np.cumsum(~absent) - 1)
    codes = new[np.asarray(coded.indices)]
    counts = np.bincount(codes[codes >= 0], minlength=int((~absent).sum()))
    return Column(name, texts.filter(pa.array(~absent)), counts, codes, nulls, is_list)


def decide(
    column: Column, sample: Sample, columns: dict[str, Column], chosen: dict[str, str]
) -> tuple[dict[str, Any] | None, str]:
    """The feature that a column becomes.

    Args:
        column: the column.
        sample: what it is from.
        columns: all of them.
        chosen: the label, as `LabelSpec` writes it.

    Returns:
        (the feature as a schema writes it, "") or (None, why it is none).
    """
    name, rows = column.name, sample.num_rows
    refusal = _refusal_by_name(column)
    if refusal:
        return None, refusal
    time_format = _time_format(column)
    if time_format is not None:
        parts = ["weekday"] if "%H" not in time_format and "%" in time_format else None
        return {
            "name": name,
            "kind": "datetime",
            "format": time_format,
            **({"parts": parts} if parts else {}),
        }, ""
    if len(column.values) == 1 and not column.missing:
        return None, f"constant in the sample ({column.values[0].as_py()[:40]!r})"
    if "column" in chosen and _tells_label(column, columns[chosen["column"]]):
        return None, "probable leak: in the sample it tells the label"
    options, refusal = _options_by_values(column, rows)
    return (None, refusal) if options is None else ({"name": name, **options}, "")


def _refusal_by_name(column: Column) -> str:
    """Why a column is no feature whatever its values are; "" if it may be one."""
    if not column.name.strip():
        return "it has no name (an index?)"
    if not len(column.values):
        return "empty in the sample"
    if _CARRIED.search(column.name) and column.all_match(NUMBER):
        return CARRIED
    if _LEAKING.search(column.name):
        return "probable leak: by its name it is known only after the click"
    return ""


def _options_by_values(column: Column, num_rows: int) -> tuple[dict[str, Any] | None, str]:
    """(the feature without its name, "") or (None, why it is none)."""
    distinct = len(column.values)
    if column.is_list:
        return _sequence_options(column, _separator(column) or ","), ""
    if column.all_match(NUMBER) and not column.all_match(r"^0[0-9]"):
        if _is_numeric(column):
            return _numeric_options(column), ""
        if distinct > 0.98 * num_rows and num_rows > 20:
            return None, "unique in nearly every row (a row id?)"
    elif (separator := _separator(column)) is not None:
        return _sequence_options(column, separator), ""
    elif distinct > 0.95 * num_rows and num_rows > 20:
        return None, "unique in nearly every row (a row id, or free text?)"
    elif column.all_match(_IMAGE_PATH):
        return {"kind": "image", "is_path": True}, ""
    return {"kind": "categorical", **({"min_count": 2} if distinct > 1000 else {})}, ""


def _time_format(column: Column) -> str | None:
    """The format that all values fit, if the column is a time."""
    if column.all_match(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}"):
        return "iso"
    candidates: tuple[str, ...] = ()
    if column.all_match(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"):
        candidates = ("%Y-%m-%d",)
    elif column.all_match(r"^[0-9]{6,19}$"):
        numbers = column.numbers()
        in_order = len(numbers) > 100 and bool(
            (np.diff(column.codes[column.codes >= 0]) >= 0).all()
        )
        if not _TIME_NAME.search(column.name) and not in_order:
            return None
        for name, unit in EPOCH_SCALE.items():
            if _YEARS[0] * unit <= numbers.min() and numbers.max() <= _YEARS[1] * unit:
                return name
        candidates = _TIME_FORMATS
    for candidate in candidates:
        seconds = parse_time(column.values, candidate)
        if seconds.null_count == 0:
            found = np.asarray(seconds)
            if _YEARS[0] <= found.min() and found.max() <= _YEARS[1]:
                return candidate
    return None


def _is_numeric(column: Column) -> bool:
    """Whether a column of numbers is a quantity, not an id."""
    numbers = column.numbers()
    whole = bool((numbers == np.round(numbers)).all())
    named = _named_kind(column.name)
    if named == "number" or not whole:
        return True
    if named == "id":
        # Floats are ids only because a missing value made them so: then they are few.
        return not column.all_match(r"^[+-]?[0-9]+$") and len(numbers) > 100
    if not column.all_match(r"^[+-]?[0-9]{1,15}$"):
        return column.all_match(r"\.")  # "3.0" is a quantity, twenty digits are an id
    if len(numbers) < 8 or numbers.min() < -100:
        return numbers.min() < -100
    return _starts_densely_at_zero(numbers, column.counts)


def _named_kind(name: str) -> str | None:
    """What the name says: id, number or nothing. Criteo's I1 is a number, C1 an id."""
    short = re.fullmatch(r"([a-z])\d+", name.lower())
    if short:
        return {"c": "id", "i": "number", "n": "number"}.get(short[1])
    words = re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    for word in reversed(words):
        if _ID_WORD.fullmatch(word):
            return "id"
        if _NUMBER_WORD.fullmatch(word):
            return "number"
    return None


def _starts_densely_at_zero(numbers: np.ndarray, counts: np.ndarray) -> bool:
    """Counts pile up near zero, at nearly every integer below their median; or have a long tail."""
    order = np.argsort(numbers)
    numbers, counts = numbers[order], counts[order]
    positive = numbers >= 0
    numbers, counts = numbers[positive], counts[positive]
    if not len(numbers) or numbers[0] > 10:
        return False
    median = numbers[np.searchsorted(np.cumsum(counts), counts.sum() / 2)]
    below = numbers[numbers <= max(median, 3)]
    dense = len(below) >= 0.8 * (max(median, 3) - numbers[0] + 1)
    return bool(dense or numbers[-1] > 20 * max(median, 1))


def _numeric_options(column: Column) -> dict[str, Any]:
    numbers = column.numbers()
    options: dict[str, Any] = {"kind": "numeric"}
    order = np.argsort(numbers)
    cumulative = np.cumsum(column.counts[order])
    median = numbers[order][np.searchsorted(cumulative, cumulative[-1] / 2)]
    if numbers.max() > 20 * max(abs(median), 1):
        options["log1p"] = True
    if column.missing > 0.01:
        options["missing_indicator"] = True
    return options


def _separator(column: Column) -> str | None:
    """What parts the items, when a value holds several that recur elsewhere.

    Of a typed list: what no item holds, so that its text says the same.
    """
    values = column.values[:20_000]
    texts = values.to_pylist()
    if column.is_list:
        return next((s for s in (",", "|", ";") if not any(s in text for text in texts)), ITEM_MARK)
    in_brackets = column.all_match(f"^{BRACKETED}$")
    for separator in _SEPARATORS:
        if sum(separator in text for text in texts) < 0.05 * len(texts):
            continue
        items, _ = list_items(values.cast(pa.binary()), ColumnRule("list", separator))
        items = items.filter(pc.not_equal(items, b""))
        several = len(items) / len(texts) >= (3.0 if separator == " " else 1.3)
        if in_brackets or (several and len(pc.unique(items)) <= 0.5 * len(items)):
            return separator
    return "," if in_brackets else None


def _sequence_options(column: Column, separator: str) -> dict[str, Any]:
    mark = ITEM_MARK if column.is_list else separator
    lengths = [text.count(mark) + 1 for text in column.values[:20_000].to_pylist()]
    wanted = int(np.quantile(lengths, 0.99)) if lengths else 1
    max_length = next((n for n in (4, 8, 16, 32) if n >= wanted), 64)
    keep = {} if _NEWEST_LAST.search(column.name) else {"keep": "first"}
    options = {"separator": separator, "max_length": max_length, **keep, "min_count": 2}
    return {"kind": "sequence", **options}


def _tells_label(column: Column, label: Column) -> bool:
    """Whether knowing the column leaves under a tenth of the label's entropy."""
    clicks = (label_numbers(label) == 1)[np.maximum(label.codes, 0)]
    codes = column.codes + 1
    if column.all_match(NUMBER) and len(column.values):
        rank = np.argsort(np.argsort(column.numbers()))
        bins = max(min(50, len(codes) // 40), 2)
        codes = np.append(rank * bins // max(len(rank), 1) + 1, 0)[column.codes]
    if len(np.unique(codes)) > len(codes) / 20:
        return False  # nearly every row its own value: that would prove nothing
    shown, clicked = np.bincount(codes), np.bincount(codes, weights=clicks)
    known = shown > 0
    left = (shown[known] * _entropy(clicked[known] / shown[known])).sum() / len(codes)
    everything = _entropy(np.array([clicks.mean()]))[0]
    return bool(everything > 0 and left < 0.1 * everything)


def _entropy(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))
