"""How each raw column of a schema is read: as a number, a text, a list, a time or an image."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal

import pyarrow as pa

from pipeline.schema import (
    DatetimeFeature,
    FeatureSchema,
    ImageColumn,
    SequenceColumn,
    feature_columns,
)

__all__ = ["BOOLEANS", "ColumnRule", "column_rules"]

BOOLEANS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
"""Spellings of a boolean, and the one that they are read as."""


@dataclasses.dataclass(frozen=True)
class ColumnRule:
    """How one raw column is read.

    Attributes:
        kind: what the transform takes it for.
        separator: between the items of a list written as text.
        time_format: how a time is written as text; see `pipeline.schema.DatetimeFeature`.
        markers: texts that mean "missing", besides the empty one.
        verbatim: texts are taken as they are written (`rules: 1` in the schema): no marker, one
            boolean per spelling, lists cut at their separator and nowhere else.
    """

    kind: Literal["number", "text", "list", "item", "time", "image"] = "text"
    separator: str = ","
    time_format: str | None = None
    markers: tuple[str, ...] = ()
    verbatim: bool = False

    @functools.cached_property
    def numeric_markers(self) -> tuple[float, ...]:
        """The markers that are numbers: a numeric column is compared with them by value."""
        return tuple(n for m in self.markers if (n := _number(m)) is not None)

    @functools.cached_property
    def aliases(self) -> dict[str, str]:
        """Text -> what it is read as. A boolean is a whole text: in a list, `True` is a word."""
        if self.verbatim or self.kind == "image":
            return {}
        booleans = BOOLEANS if self.kind == "text" else {}
        return {**booleans, **dict.fromkeys(self.markers, "")}

    @functools.cached_property
    def alias_arrays(self) -> tuple[pa.Array, pa.Array]:
        """The same as two binary arrays."""
        texts = [text.encode() for text in self.aliases]
        read_as = [text.encode() for text in self.aliases.values()]
        return pa.array(texts, pa.binary()), pa.array(read_as, pa.binary())

    def of_items(self) -> ColumnRule:
        """The rule of a single item of this list."""
        return dataclasses.replace(self, kind="item")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def column_rules(schema: FeatureSchema) -> dict[str, ColumnRule]:
    """The rule of every raw column that the schema reads, in the order of `schema.columns`."""
    numbers, readers = set(schema.number_columns), dict[str, list[Any]]()
    for feature in schema.features:
        for column in feature_columns(feature):
            readers.setdefault(column, []).append(feature)
    rules = {}
    for column in schema.columns:
        features = readers.get(column, [])
        own = next((f.missing for f in features if getattr(f, "missing", None) is not None), None)
        markers = schema.missing_texts if own is None else own
        rules[column] = ColumnRule(
            kind="number" if column in numbers else _kind(column, features, schema),
            separator=next((f.separator for f in features if isinstance(f, SequenceColumn)), ","),
            time_format=_time_format(column, features, schema),
            markers=() if schema.rules == 1 else tuple(m for m in markers if m),
            verbatim=schema.rules == 1,
        )
    return rules


def _kind(column: str, features: list[Any], schema: FeatureSchema) -> Any:
    if any(isinstance(f, ImageColumn) for f in features):
        return "image"
    if any(isinstance(f, SequenceColumn) for f in features):
        return "list"
    only_times = bool(features) and all(isinstance(f, DatetimeFeature) for f in features)
    is_time = schema.time is not None and schema.time.column == column
    if only_times or (is_time and not features):
        return "time"
    return "text"


def _time_format(column: str, features: list[Any], schema: FeatureSchema) -> str | None:
    found = next((f.format for f in features if isinstance(f, DatetimeFeature)), None)
    if found is None and schema.time is not None and schema.time.column == column:
        return schema.time.format
    return found
