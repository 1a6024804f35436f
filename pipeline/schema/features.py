"""The kinds of features, each saying what its column is and how it becomes a number or an id."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.schema.formats import Frozen, missing_texts
from pipeline.schema.time_format import check_time_format

__all__ = [
    "CROSS_SEPARATOR",
    "CategoricalFeature",
    "CrossFeature",
    "DatetimeFeature",
    "Feature",
    "ImageColumn",
    "NumericFeature",
    "SequenceColumn",
    "VocabularyFeature",
    "encoded_names",
    "feature_columns",
    "vocabulary_features",
    "vocabulary_owner",
]

CROSS_SEPARATOR = "\x1f"  # between the parts of a crossed value
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")  # also a file name and a SavedModel input name
_MOST_IDS = 2**31 - 1


class _FeatureBase(Frozen):
    name: str

    @field_validator("name")
    @classmethod
    def _usable_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value.replace("*", "x")):
            raise ValueError(
                "a feature name is letters, digits, '_', '-' and '.', since it names a model input "
                f"and a file; got {value!r}. For a column with another name give `column`"
            )
        return value


class _ColumnFeature(_FeatureBase):
    """A feature read from one column.

    Attributes:
        column: in the file, of any name and script; the feature's own name when it is left out.
        missing: texts that mean "missing" in this column, instead of the schema's; a number among them
            is compared by value in a numeric column.
    """

    column: str = ""
    missing: tuple[str, ...] | None = None

    @field_validator("missing", mode="before")
    @classmethod
    def _missing_texts(cls, value: Any) -> Any:
        return missing_texts(value)

    @model_validator(mode="before")
    @classmethod
    def _default_column(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and not raw.get("column") and "name" in raw:
            return {**raw, "column": raw["name"]}
        return raw


class NumericFeature(_ColumnFeature):
    """A number; one column of the `numeric` tensor, or an id when `quantile_buckets` is set.

    In order: missing (empty, NaN, infinite) -> `missing_value`; clip; sign(x) log(1 + |x|) when
    `log1p`; (x - mean) / standard deviation of the training log when `scale` is z_score.

    Attributes:
        missing_value: what a missing value becomes, in the column's own units.
        missing_indicator: adds a 0/1 column that says "was missing".
        clip: lower and upper bound, in the column's own units.
        quantile_buckets: encode as an id instead: the bucket between this many training quantiles.
    """

    kind: Literal["numeric"] = "numeric"
    missing_value: float = Field(0.0, allow_inf_nan=False)
    missing_indicator: bool = False
    clip: tuple[float, float] | None = None
    log1p: bool = False
    scale: Literal["z_score", "none"] = "z_score"
    quantile_buckets: int | None = Field(None, ge=2, le=10_000)

    @model_validator(mode="after")
    def _consistent(self) -> NumericFeature:
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip must be [low, high] with low < high; got {list(self.clip)}")
        return self


class _Vocabulary(Frozen):
    """How values become ids.

    Attributes:
        min_count: rarer values are treated as unseen.
        max_vocab_size: at most this many values, the most frequent first; 0 hashes everything.
        num_oov_buckets: hashed ids for values outside the vocabulary.
    """

    min_count: int = Field(1, ge=1)
    max_vocab_size: int = Field(1_000_000, ge=0)
    num_oov_buckets: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _ids_fit(self) -> _Vocabulary:
        ids = 1 + self.max_vocab_size + self.num_oov_buckets
        if ids > _MOST_IDS:
            raise ValueError(
                f"1 + max_vocab_size + num_oov_buckets must fit 31 bits ({_MOST_IDS}); got {ids}"
            )
        return self


class CategoricalFeature(_Vocabulary, _ColumnFeature):
    """One value out of a vocabulary; the empty text is "missing"."""

    kind: Literal["categorical"] = "categorical"


class SequenceColumn(_Vocabulary, _ColumnFeature):
    """Several values in one column, as a fixed-width row of ids.

    Attributes:
        separator: between two values of a list that is written as text; a typed list needs none.
        max_length: how many are kept.
        keep: the last ones (the newest of a history) or the first ones.
        vocabulary_of: share the vocabulary (and the embedding) of this categorical feature, limits
            included.
    """

    kind: Literal["sequence"] = "sequence"
    separator: str = Field(",", min_length=1)
    max_length: int = Field(20, ge=1, le=10_000)
    keep: Literal["last", "first"] = "last"
    vocabulary_of: str | None = None


class CrossFeature(_Vocabulary, _FeatureBase):
    """The combination of several text columns as one value; missing when any of them is."""

    kind: Literal["cross"] = "cross"
    of: tuple[str, ...] = Field(min_length=2)


class DatetimeFeature(_ColumnFeature):
    """Parts of a date and time, each an id feature `<name>_<part>`.

    Attributes:
        format: of a time that is written as text or as a number: `epoch_s`, `epoch_ms`, `epoch_us`,
            `epoch_ns`, `iso` (2014-10-21 00:59:59, anything after that ignored, time zone included), or a
            fixed-width pattern of %Y %y %m %d %H %M %S and literal characters. Dates and time stamps of
            typed files are read by their type.
        parts: which ids to make.
    """

    kind: Literal["datetime"] = "datetime"
    format: str = "iso"
    parts: tuple[Literal["hour", "weekday", "day", "month"], ...] = Field(
        ("hour", "weekday"), min_length=1
    )

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        check_time_format(value)
        return value


class ImageColumn(_ColumnFeature):
    """An encoded image (PNG, JPEG, GIF or BMP bytes), resized to height x width.

    The served graph takes bytes; a path is read in Beam only (`is_path`).
    """

    kind: Literal["image"] = "image"
    height: int = Field(28, ge=1, le=4096)
    width: int = Field(28, ge=1, le=4096)
    channels: Literal[1, 3] = 3
    is_path: bool = False


Feature = Annotated[
    NumericFeature
    | CategoricalFeature
    | SequenceColumn
    | CrossFeature
    | DatetimeFeature
    | ImageColumn,
    Field(discriminator="kind"),
]
VocabularyFeature = CategoricalFeature | CrossFeature | SequenceColumn


def feature_columns(feature: Any) -> tuple[str, ...]:
    """The raw columns that one feature reads."""
    return feature.of if isinstance(feature, CrossFeature) else (feature.column,)


def vocabulary_owner(feature: VocabularyFeature) -> str:
    """The feature whose vocabulary (and so whose embedding rows) this feature uses."""
    shared = feature.vocabulary_of if isinstance(feature, SequenceColumn) else None
    return shared or feature.name


def vocabulary_features(features: Iterable[Any]) -> dict[str, VocabularyFeature]:
    """By name, those of the features that may have a vocabulary."""
    return {f.name: f for f in features if isinstance(f, VocabularyFeature)}


def encoded_names(feature: Any) -> tuple[str, ...]:
    """How the encoded columns of one feature are called."""
    if isinstance(feature, DatetimeFeature):
        return tuple(f"{feature.name}_{part}" for part in feature.parts)
    if isinstance(feature, NumericFeature) and not feature.quantile_buckets:
        indicator = (f"{feature.name}_missing",) if feature.missing_indicator else ()
        return (feature.name, *indicator)
    return (feature.name,)
