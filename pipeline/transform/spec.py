"""What the transform gives, told from schema and statistics alone. Needs no TensorFlow."""

from __future__ import annotations

import hashlib
from collections.abc import Sized

from pipeline.records.encoded import EncodedSpec, IdFeature, ImageFeature, SequenceFeature
from pipeline.schema import (
    CategoricalFeature,
    CrossFeature,
    DatetimeFeature,
    FeatureSchema,
    ImageColumn,
    NumericFeature,
    SequenceColumn,
    VocabularyFeature,
    vocabulary_features,
    vocabulary_owner,
)
from pipeline.schema.time_format import PART_SIZES
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.statistics.vocabulary import content_bytes

__all__ = ["encoded_spec", "transform_fingerprint"]


def encoded_spec(schema: FeatureSchema, statistics: FeatureStatistics | None) -> EncodedSpec:
    """Names, order and sizes of the encoded tensors.

    Without statistics, before any row was read, every vocabulary counts as empty: names, order and
    widths are what they will be, `vocab_size` and fingerprint are not.
    """
    numeric = [
        f for f in schema.features if isinstance(f, NumericFeature) and not f.quantile_buckets
    ]
    owners = vocabulary_features(schema.features)
    categorical: list[IdFeature] = []
    sequences: list[SequenceFeature] = []

    def vocab_size(feature: VocabularyFeature) -> int:
        owner = owners[vocabulary_owner(feature)]
        kept: Sized = ()
        if statistics is not None and owner.max_vocab_size:
            kept = statistics.vocabularies[owner.name].values
        return 1 + owner.num_oov_buckets + len(kept)

    for f in schema.features:
        if isinstance(f, (CategoricalFeature, CrossFeature)):
            categorical.append(IdFeature(f.name, vocab_size(f)))
        elif isinstance(f, DatetimeFeature):
            categorical += [IdFeature(f"{f.name}_{part}", 1 + PART_SIZES[part]) for part in f.parts]
        elif isinstance(f, NumericFeature) and f.quantile_buckets:
            boundaries: Sized = ()
            if statistics is not None:
                boundaries = statistics.numbers["numeric"][f.name]["bucket_boundaries"]
            categorical.append(IdFeature(f.name, 2 + len(boundaries)))
        elif isinstance(f, SequenceColumn):
            sequences.append(
                SequenceFeature(f.name, vocab_size(f), f.max_length, vocabulary_owner(f))
            )
    names = [f.name for f in numeric]
    names += [f"{f.name}_missing" for f in numeric if f.missing_indicator]
    images = tuple(
        ImageFeature(f.name, f.height, f.width, f.channels)
        for f in schema.features
        if isinstance(f, ImageColumn)
    )
    return EncodedSpec(
        numeric=tuple(names),
        categorical=tuple(categorical),
        sequences=tuple(sequences),
        images=images,
        carry=schema.carry,
        fingerprint="" if statistics is None else transform_fingerprint(schema, statistics),
    )


def transform_fingerprint(schema: FeatureSchema, statistics: FeatureStatistics) -> str:
    """Changes whenever the encoding of any row may change; `schema.rules` is the version of the encoding."""
    digest = hashlib.sha256(f"{schema.rules} {schema.fingerprint()}".encode())
    for name, summary in sorted(statistics.numbers["numeric"].items()):
        used = [summary["prepared_mean"], summary["prepared_standard_deviation"]]
        digest.update(repr((name, used, summary.get("bucket_boundaries"))).encode())
    for name, vocabulary in sorted(statistics.vocabularies.items()):
        digest.update(name.encode() + b"\0")
        digest.update(content_bytes(vocabulary.values))
    return digest.hexdigest()[:16]
