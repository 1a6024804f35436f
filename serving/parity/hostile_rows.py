"""The rows that parity is proved on: real ones kept by the preprocessing job, and hostile ones."""

from __future__ import annotations

import numpy as np

from pipeline.schema import FeatureSchema
from pipeline.transform.raw_rows import RawRows

__all__ = [
    "hostile_rows",
]

_HOSTILE_TEXTS = (
    b"",
    b" ",
    b"never seen before",
    "ключ-鍵-🔑".encode(),
    "e\u0301 is not \u00e9".encode(),
    b"line\nbreak\r\n",
    b'quote"comma,tab\tpipe|',
    b"\x00nul",
    b"\xff\xfe not utf-8",
    b"x" * 100_000,
    b"0",
    b"-1",
    b"1e400",
    b"nan",
    b"14102100",
    b"99999999",
    b"2019-02-30 25:61:61",
    b"2019-11-24 00:00:17.004101+00:00",
    b"1414022400",
    b"18446744073709551616",
)
_HOSTILE_NUMBERS = (
    float("nan"),
    float("inf"),
    float("-inf"),
    0.0,
    -0.0,
    -1.0,
    1.0,
    3.4028235e38,
    -3.4028235e38,
    1e-45,
    1.17549435e-38,
    16777217.0,
    0.1,
    -2.5,
    1e6,
)


def hostile_rows(schema: FeatureSchema, like: RawRows) -> RawRows:
    """Rows made to break a transform: everything missing, and each hostile value in every column.

    Args:
        schema: of the rows.
        like: real rows; their values fill the columns that a hostile value does not take.
    """
    num_rows = 2 * max(len(_HOSTILE_TEXTS), len(_HOSTILE_NUMBERS)) + 1
    base = like.take(np.arange(num_rows) % len(like))
    numbers, texts = base.numbers.copy(), base.texts.copy()
    for i in range(num_rows - 1):
        # First half: one hostile value in all columns; second half: a different one in each.
        step = 0 if i < num_rows // 2 else 1
        for j in range(numbers.shape[1]):
            numbers[i, j] = _HOSTILE_NUMBERS[(i + step * j) % len(_HOSTILE_NUMBERS)]
        for j in range(texts.shape[1]):
            texts[i, j] = _HOSTILE_TEXTS[(i + step * j) % len(_HOSTILE_TEXTS)]
    numbers[-1], texts[-1] = np.nan, b""
    return RawRows(schema, numbers, texts, base.images)
