"""What a row is beside its features: its label, its time, its split."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.schema.formats import Frozen
from pipeline.schema.time_format import check_time_format

__all__ = ["LabelSpec", "SplitSpec", "TimeSpec"]


class LabelSpec(Frozen):
    """Where the label is: one 0/1 column, or counted clicks and impressions.

    Counted rows become weighted examples: label 1 with weight clicks, label 0 with weight
    impressions - clicks (whichever is not zero).
    """

    column: str | None = None
    clicks: str | None = None
    impressions: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        return {"column": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _one_form(self) -> LabelSpec:
        aggregated = (self.clicks is not None) + (self.impressions is not None)
        if (self.column is not None) == (aggregated > 0) or aggregated == 1:
            raise ValueError("label is either `column`, or `clicks` and `impressions` together")
        return self


class TimeSpec(Frozen):
    """The time of a row: for the split by time, the label rate over time and the drift gate."""

    column: str
    format: str = "iso"

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        check_time_format(value)
        return value


class SplitSpec(Frozen):
    """Which rows are validation and which are test.

    Attributes:
        by: `row` (hash of the row's position), `key` (hash of the `key` column: all rows of a user
            stay together), `time` (the newest rows are test, those before them validation) or
            `column` (its value is the split's name).
        validation, test: shares of the rows (of the keys; of the rows in time order).
        seed: of the hash.
    """

    by: Literal["row", "key", "time", "column"] = "row"
    key: str | None = None
    column: str | None = None
    validation: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> SplitSpec:
        if (self.by == "key") != (self.key is not None):
            raise ValueError("`key` goes with `by: key`, and only with it")
        if (self.by == "column") != (self.column is not None):
            raise ValueError("`column` goes with `by: column`, and only with it")
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must leave rows to train on (be below 1); "
                f"got {self.validation} + {self.test}"
            )
        return self
