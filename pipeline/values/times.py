"""Times: typed ones written as the schema's format writes them, and texts read as seconds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema.time_format import (
    EPOCH_BOUNDS,
    EPOCH_SCALE,
    ISO,
    directives,
    expression,
)
from pipeline.statistics.vocabulary import one_array

__all__ = ["likely_format", "parse_time", "write_times"]

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def write_times(column: pa.Array, time_format: str | None) -> pa.Array:
    """Dates and time stamps as texts, null for null; string [n].

    An epoch is the instant. A pattern shows the clock of the stamp's own zone, as its text would.

    Args:
        column: date32, date64 or timestamp of any unit and zone.
        time_format: of the schema; None for a column that is no time there: `2014-10-21`, or
            `2014-10-21 00:59:59` with a fraction if it has one.

    Raises:
        ValueError: the stamp is beyond what its unit or the format's can hold.
    """
    is_date = pa.types.is_date(column.type)
    if is_date:
        days = column.cast(pa.date32())
        stamps = days.cast(pa.timestamp("s"))
    else:
        stamps = column
    if time_format in EPOCH_SCALE:
        return _epochs(stamps, EPOCH_SCALE[time_format]).cast(pa.string())
    if not is_date and stamps.type.tz is not None:
        stamps = pc.local_timestamp(stamps)
    if time_format is None:
        texts = pc.strftime(stamps, format="%Y-%m-%d" if is_date else "%Y-%m-%d %H:%M:%S")
        texts = pc.replace_substring_regex(texts, r"(\.[0-9]*?)0+$", r"\1")
        return pc.replace_substring_regex(texts, r"\.$", "")
    seconds = _epochs(stamps, 1).cast(pa.timestamp("s"))
    return pc.strftime(seconds, format="%Y-%m-%d %H:%M:%S" if time_format == "iso" else time_format)


def _epochs(stamps: pa.Array, scale: int) -> pa.Array:
    """int64 since 1970 in units of 1 / scale seconds, rounded down."""
    counts, own = stamps.cast(pa.int64()), _PER_SECOND[stamps.type.unit]
    if own <= scale:
        return pc.multiply_checked(counts, scale // own)
    floored = np.floor_divide(np.asarray(pc.fill_null(counts, 0)), own // scale)
    return pc.if_else(pc.is_null(counts), None, pa.array(floored))


def parse_time(column: pa.ChunkedArray | pa.Array, time_format: str) -> pa.Array:
    """Texts -> int64 seconds since 1970 (UTC as written), null where a text does not fit the format.

    An epoch outside the years of `pipeline.schema.time_format.EPOCH_YEARS` does not fit: it is of another
    unit.
    """
    text = one_array(pc.cast(column, pa.string()))
    fits = pc.match_substring_regex(text, f"^(?:{expression(time_format)})$")
    if time_format in EPOCH_SCALE:
        digits = pc.if_else(fits, text, None)
        if pc.any(pc.match_substring(digits, ".")).as_py():
            digits = pc.replace_substring_regex(digits, r"\..*", "")
        seconds = pc.divide(pc.cast(digits, pa.int64()), EPOCH_SCALE[time_format])
        low, high = EPOCH_BOUNDS
        known = pc.and_(pc.greater_equal(seconds, low), pc.less(seconds, high))
        return pc.if_else(known, seconds, None)
    where, _ = directives(time_format)
    if time_format == "iso":
        date, clock = pc.utf8_slice_codeunits(text, 0, 10), pc.utf8_slice_codeunits(text, 11, 19)
        text, time_format = pc.binary_join_element_wise(date, clock, "T"), ISO
    text = pc.if_else(fits, text, None)
    stamps = pc.strptime(text, format=time_format, unit="s", error_is_null=True)
    if "d" in where:  # the 30th of February is accepted and becomes the 2nd of March
        start, width = where["d"]
        day = pc.binary_slice(pc.cast(text, pa.binary()), start, start + width)
        same = pc.equal(pc.day(stamps), pc.cast(pc.cast(day, pa.string()), pa.int64()))
        stamps = pc.if_else(same, stamps, None)
    return pc.cast(stamps, pa.int64())


def likely_format(text: str) -> str | None:
    """The time format that one text fits, for an error's remedy; None when it fits none that is known."""
    candidates = (*EPOCH_SCALE, "iso", "%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y")
    for candidate in candidates:
        if parse_time(pa.array([text]), candidate).null_count == 0:
            return candidate
    return None
