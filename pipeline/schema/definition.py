"""The fields of a schema, the column views that follow from them, and what contradicts itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.schema.features import (
    CategoricalFeature,
    CrossFeature,
    Feature,
    ImageColumn,
    NumericFeature,
    SequenceColumn,
    encoded_names,
    feature_columns,
)
from pipeline.schema.formats import (
    DEFAULT_MISSING,
    CsvFormat,
    FileFormat,
    Frozen,
    expand_range,
    missing_texts,
)
from pipeline.schema.label_time_split import LabelSpec, SplitSpec, TimeSpec

__all__ = ["SchemaDefinition", "distinct_names", "plain_name"]


class SchemaDefinition(Frozen):
    """The fields of `pipeline.schema.FeatureSchema`; see there."""

    name: str
    source: FileFormat = CsvFormat()
    label: LabelSpec
    features: tuple[Feature, ...] = Field(min_length=1)
    weight: str | None = None
    time: TimeSpec | None = None
    split: SplitSpec = SplitSpec()
    carry: tuple[str, ...] = ()
    missing: tuple[str, ...] = DEFAULT_MISSING
    rules: Literal[1, 2] = 2

    @field_validator("missing", mode="before")
    @classmethod
    def _missing_texts(cls, value: Any) -> Any:
        return missing_texts(value)

    @field_validator("features", mode="before")
    @classmethod
    def _expand_ranges(cls, value: Any) -> Any:
        """`{name: "I{1..13}", kind: numeric}` -> thirteen features."""
        if not isinstance(value, (list, tuple)):
            return value
        expanded: list[Any] = []
        for item in value:
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                expanded += [{**item, "name": name} for name in expand_range(item["name"])]
            else:
                expanded.append(item)
        return tuple(expanded)

    @model_validator(mode="after")
    def _consistent(self) -> SchemaDefinition:
        self.check()
        return self

    def check(self) -> None:
        """Raises ValueError when the parts contradict each other."""
        doubled = _doubled(f.name for f in self.features)
        if doubled:
            raise ValueError(f"feature names must differ; got {doubled} twice")
        doubled = _doubled(n for f in self.features for n in encoded_names(f))
        if doubled:
            raise ValueError(
                "encoded names (<name>, <name>_missing, <datetime>_<part>) must differ; "
                f"got {doubled} twice"
            )
        doubled = _doubled((*self.input_numbers, *self.input_texts, *self.input_images))
        if doubled:
            raise ValueError(
                "a column is one kind of model input (a number, a text or an image); "
                f"got {doubled} twice"
            )
        self._check_columns_agree()
        self._check_markers_agree()
        by_name = {f.name: f for f in self.features}
        for feature in self.features:
            if isinstance(feature, SequenceColumn) and feature.vocabulary_of is not None:
                target = by_name.get(feature.vocabulary_of)
                if not isinstance(target, CategoricalFeature):
                    raise ValueError(
                        f"{feature.name}: vocabulary_of must name a categorical feature; "
                        f"got {feature.vocabulary_of!r}"
                    )
                if feature.missing != target.missing:
                    raise ValueError(
                        f"{feature.name}: features of one vocabulary must agree on `missing`; got "
                        f"{feature.missing} and {target.missing} of {target.name}"
                    )

    def _check_markers_agree(self) -> None:
        found: dict[str, Any] = {}
        for feature in self.features:
            for column in feature_columns(feature):
                own = getattr(feature, "missing", None)
                if own is not None and found.setdefault(column, own) != own:
                    raise ValueError(
                        f"features that read one column must agree on `missing`; {column!r} has "
                        f"{list(found[column])} and {list(own)}"
                    )

    def _check_columns_agree(self) -> None:
        if self.split.by == "time" and self.time is None:
            raise ValueError("`split.by: time` needs `time`")
        leaks = {self.label.column, self.label.clicks, self.label.impressions, *self.carry} - {None}
        for feature in self.features:
            for column in feature_columns(feature):
                if column in leaks:
                    raise ValueError(
                        f"feature {feature.name!r} reads column {column!r}, which is the label "
                        "or a carried column: a model must not see it"
                    )
        texts = {*self.input_texts, *self.input_images, self.split.key, self.split.column}
        texts.add(self.time.column if self.time else None)
        both = sorted(texts.intersection(self.number_columns))  # type: ignore[type-var]
        if both:
            raise ValueError(
                "a column is read as a number (numeric, label, weight, carry) or as text "
                f"(the other kinds, time, split), not as both; got {', '.join(map(str, both))}"
            )

    # --------------------------------------------------------------- views

    @property
    def missing_texts(self) -> tuple[str, ...]:
        """Texts that mean "missing" in every column whose feature says nothing else."""
        more = self.source.null_values if isinstance(self.source, CsvFormat) else ()
        return _distinct(*self.missing, *more)

    @property
    def non_feature_columns(self) -> tuple[str, ...]:
        """Label, weight, time, split and carried columns that the schema reads."""
        return _distinct(
            self.label.column,
            self.label.clicks,
            self.label.impressions,
            self.weight,
            self.time.column if self.time else None,
            self.split.key,
            self.split.column,
            *self.carry,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Every raw column that is read, without repeats."""
        of_features = (c for f in self.features for c in feature_columns(f))
        return _distinct(*of_features, *self.non_feature_columns)

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Raw columns that are parsed as numbers (the others are text)."""
        return _distinct(
            *self.input_numbers,
            self.label.column,
            self.label.clicks,
            self.label.impressions,
            self.weight,
            *self.carry,
        )

    @property
    def input_numbers(self) -> tuple[str, ...]:
        """Raw numeric columns that the served model takes, in order: float32, NaN = missing."""
        return _distinct(*(f.column for f in self.features if isinstance(f, NumericFeature)))

    @property
    def input_texts(self) -> tuple[str, ...]:
        """Raw text columns that the served model takes, in order: bytes, empty = missing."""
        texts = (f for f in self.features if not isinstance(f, (NumericFeature, ImageColumn)))
        return _distinct(*(c for f in texts for c in feature_columns(f)))

    @property
    def input_images(self) -> tuple[str, ...]:
        """Raw image columns that the served model takes, in order: encoded bytes."""
        return _distinct(*(f.column for f in self.features if isinstance(f, ImageColumn)))

    @property
    def input_names(self) -> dict[str, str]:
        """Raw column -> its name as an input of the served model, all different.

        It is the name of the first feature that reads the column; of a column that only crosses read,
        its own. TensorFlow allows letters, digits and `_`.
        """
        columns = (*self.input_numbers, *self.input_texts, *self.input_images)
        if self.rules == 1:
            return {column: plain_name(column) for column in columns}
        own: dict[str, str] = {}
        for feature in self.features:
            if not isinstance(feature, CrossFeature):
                own.setdefault(feature.column, feature.name)
        return distinct_names([own.get(c, c) for c in columns], columns)

    def input_name(self, column: str) -> str:
        """The name of one raw column as an input of the served model."""
        return self.input_names[column]

    def image_input_name(self, column: str) -> str:
        """The name of an image column beside the matrices of the compact signature."""
        return f"images_{self.input_name(column)}"


def plain_name(text: str) -> str:
    """A text as a name that TensorFlow allows; different texts may become one."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return f"x{name}" if name.startswith("_") or not name else name


def distinct_names(wanted: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Column -> the plain name of what is wanted for it, with a number where others have it already.

    A name without a letter or digit of its own (a column in another script) becomes `column_<n>`.
    """
    taken: set[str] = set()
    names = {}
    for place, (text, column) in enumerate(zip(wanted, columns, strict=True), 1):
        plain = plain_name(text)
        if not re.search(r"[A-Za-z0-9]", re.sub(r"[^A-Za-z0-9_]", "_", text)):
            plain = f"column_{place}"
        name, number = plain, 2
        while name in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name)
        names[column] = name
    return names


def _distinct(*columns: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c for c in columns if c is not None))


def _doubled(names: Iterable[str]) -> str:
    return ", ".join(sorted(name for name, count in Counter(names).items() if count > 1))
