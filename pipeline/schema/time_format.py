"""Time formats: what a text must look like. Arrow (splits, rates) and the graph (features) both ask here."""

from __future__ import annotations

import re

__all__ = [
    "EPOCH_BOUNDS",
    "EPOCH_SCALE",
    "EPOCH_YEARS",
    "ISO",
    "PART_SIZES",
    "check_time_format",
    "directives",
    "expression",
]

EPOCH_SCALE = {"epoch_s": 1, "epoch_ms": 1000, "epoch_us": 1_000_000, "epoch_ns": 1_000_000_000}
EPOCH_YEARS = (1971, 2100)
"""Years that an epoch may lie in. A wrong unit is a factor of 1000 or more: today's seconds as milliseconds
are January 1970, today's milliseconds as seconds lie beyond the year 50,000."""
EPOCH_BOUNDS = (31_536_000, 4_133_980_800)
"""The same in seconds: from 1 January 1971 up to, not including, 1 January 2101."""
PART_SIZES = {"hour": 24, "weekday": 7, "day": 31, "month": 12}
ISO = "%Y-%m-%dT%H:%M:%S"
_DIGITS = {"Y": 4, "y": 2, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
_EXPRESSION = {
    "Y": "[0-9]{4}",
    "y": "[0-9]{2}",
    "m": "(?:0[1-9]|1[0-2])",
    "d": "(?:0[1-9]|[12][0-9]|3[01])",
    "H": "(?:[01][0-9]|2[0-3])",
    "M": "[0-5][0-9]",
    "S": "[0-5][0-9]",
}


def check_time_format(value: str) -> None:
    """Raises ValueError unless `value` is a time format that the transform can execute."""
    if value in EPOCH_SCALE or value == "iso":
        return
    found = re.findall(r"%(.?)", value, re.DOTALL)
    known = not set(found) - set(_DIGITS) and len(found) == len(set(found))
    if not known or not set("Yy") & set(found) or set("Yy") <= set(found):
        raise ValueError(
            "a time format is epoch_s, epoch_ms, epoch_us, epoch_ns, iso, or a fixed-width pattern of "
            f"%Y or %y with %m %d %H %M %S, each once; got {value!r}"
        )


def expression(time_format: str) -> str:
    """RE2 expression of the whole text (the day may still be beyond its month's end)."""
    if time_format in EPOCH_SCALE:
        return r"(?:[0-9]{1,18}|[1-8][0-9]{18})(?:\.[0-9]*)?"
    text = ""
    for directive, literal in _pieces(ISO if time_format == "iso" else time_format):
        text += _EXPRESSION[directive] if directive else re.escape(literal)
    return text.replace("T", "[T ]", 1) + "(?s:.*)" if time_format == "iso" else text


def directives(time_format: str) -> tuple[dict[str, tuple[int, int]], str]:
    """({directive: (offset in bytes, digits)}, an example text) of a fixed-width format."""
    where: dict[str, tuple[int, int]] = {}
    example = ""
    for directive, literal in _pieces(ISO if time_format == "iso" else time_format):
        if directive:
            where[directive] = (len(example.encode()), _DIGITS[directive])
            example += "1970" if directive == "Y" else "01"
        else:
            example += literal
    return where, example


def _pieces(time_format: str) -> list[tuple[str, str]]:
    return re.findall(r"%([A-Za-z])|(.)", time_format, re.DOTALL)
