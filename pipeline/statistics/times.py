"""Statistics of a datetime feature: what fits the schema's format, and from when to when."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["TimeStatistics"]


@dataclasses.dataclass(frozen=True)
class TimeStatistics:
    """Counts over some rows, mergeable in any order with the same result.

    Attributes:
        present, missing: rows with a time, and without any value.
        misfits: rows whose value does not fit the format; the model sees them as missing.
        earliest, latest: seconds since 1970; None without a time.
        example: a value that does not fit, the first in byte order.
    """

    present: int = 0
    missing: int = 0
    misfits: int = 0
    earliest: int | None = None
    latest: int | None = None
    example: str | None = None

    @classmethod
    def of(cls, texts: pa.Array, seconds: pa.Array) -> TimeStatistics:
        """Of binary [n] texts and what `parse_time` made of them."""
        missing = pc.equal(texts, b"")
        wrong = pc.and_(pc.invert(missing), pc.is_null(seconds))
        misfits = pc.sum(wrong).as_py() or 0
        example = pc.min(texts.filter(wrong)).as_py() if misfits else None
        span = pc.min_max(seconds).as_py()
        return cls(
            present=len(seconds) - seconds.null_count,
            missing=pc.sum(missing).as_py() or 0,
            misfits=misfits,
            earliest=span["min"],
            latest=span["max"],
            example=None if example is None else example.decode("utf-8", "replace")[:80],
        )

    @classmethod
    def merge(cls, parts: Iterable[TimeStatistics]) -> TimeStatistics:
        """Of all rows together."""
        parts = list(parts)

        def least(name: str, choose: Any) -> Any:
            return choose((v for p in parts if (v := getattr(p, name)) is not None), default=None)

        return cls(
            present=sum(p.present for p in parts),
            missing=sum(p.missing for p in parts),
            misfits=sum(p.misfits for p in parts),
            earliest=least("earliest", min),
            latest=least("latest", max),
            example=least("example", min),
        )

    @property
    def misfit_rate(self) -> float:
        """Share of the values that do not fit."""
        return self.misfits / max(self.present + self.misfits, 1)

    def summarise(self, time_format: str) -> dict[str, Any]:
        """As statistics.json has it; times as ISO texts, in UTC as written."""

        def text(seconds: int | None) -> str | None:
            if seconds is None:
                return None
            at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
            return at.isoformat(" ")

        return {
            "format": time_format,
            "present": self.present,
            "missing": self.missing,
            "misfits": self.misfits,
            "earliest": text(self.earliest),
            "latest": text(self.latest),
            "misfit_example": self.example,
        }
