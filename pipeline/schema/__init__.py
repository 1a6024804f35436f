"""FeatureSchema: the one typed description of a data set; everything else is derived from it.

A schema says what the data *is*: the file format, the label, the features with their kinds, missing
values and vocabulary limits, the time column and the split. What a model makes of it (embedding sizes
and such) is the model's. Presets live in `pipeline/schemas/*.yaml`.
"""

from pipeline.schema.definition import distinct_names, plain_name
from pipeline.schema.features import (
    CROSS_SEPARATOR,
    CategoricalFeature,
    CrossFeature,
    DatetimeFeature,
    Feature,
    ImageColumn,
    NumericFeature,
    SequenceColumn,
    VocabularyFeature,
    feature_columns,
    vocabulary_features,
    vocabulary_owner,
)
from pipeline.schema.formats import (
    DEFAULT_MISSING,
    CsvFormat,
    ExamplesFormat,
    JsonLinesFormat,
    ParquetFormat,
    missing_texts,
)
from pipeline.schema.label_time_split import LabelSpec, SplitSpec, TimeSpec
from pipeline.schema.schema import FeatureSchema
from pipeline.strict_config import explain_validation_error

__all__ = [
    "CROSS_SEPARATOR",
    "DEFAULT_MISSING",
    "CategoricalFeature",
    "CrossFeature",
    "CsvFormat",
    "DatetimeFeature",
    "ExamplesFormat",
    "Feature",
    "FeatureSchema",
    "ImageColumn",
    "JsonLinesFormat",
    "LabelSpec",
    "NumericFeature",
    "ParquetFormat",
    "SequenceColumn",
    "SplitSpec",
    "TimeSpec",
    "VocabularyFeature",
    "distinct_names",
    "explain_validation_error",
    "feature_columns",
    "missing_texts",
    "plain_name",
    "vocabulary_features",
    "vocabulary_owner",
]
