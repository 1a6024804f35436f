"""Numbers -> the `numeric` tensor and quantile buckets, inside a graph; float64 all the way, cast last."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from pipeline.schema import FeatureSchema, NumericFeature
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.values import column_rules

__all__ = ["NumericConstants", "encode_buckets", "encode_numeric"]


@dataclasses.dataclass(frozen=True)
class NumericConstants:
    """Per raw number column feeding the `numeric` tensor; float64 [D] each."""

    column: np.ndarray  # index into the raw numbers
    missing_value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    log1p: np.ndarray  # bool
    mean: np.ndarray
    deviation: np.ndarray
    indicator: np.ndarray  # indices into D of the features with a missing indicator
    markers: np.ndarray  # [M, D]: values that mean "missing" too, NaN where there are fewer

    @classmethod
    def of(cls, schema: FeatureSchema, statistics: FeatureStatistics) -> NumericConstants:
        """The constants that schema and statistics give."""
        features = [
            f for f in schema.features if isinstance(f, NumericFeature) and not f.quantile_buckets
        ]
        summaries = [statistics.numbers["numeric"][f.name] for f in features]
        rules = column_rules(schema)
        scaled = [f.scale == "z_score" for f in features]
        mean = [s["prepared_mean"] if z else 0.0 for s, z in zip(summaries, scaled, strict=True)]
        # A constant column has no spread; it becomes 0 instead of NaN.
        deviation = [
            (s["prepared_standard_deviation"] or 1.0) if z else 1.0
            for s, z in zip(summaries, scaled, strict=True)
        ]
        return cls(
            column=np.array([schema.input_numbers.index(f.column) for f in features], np.int32),
            missing_value=np.array([f.missing_value for f in features], np.float64),
            low=np.array([f.clip[0] if f.clip else -np.inf for f in features], np.float64),
            high=np.array([f.clip[1] if f.clip else np.inf for f in features], np.float64),
            log1p=np.array([f.log1p for f in features], bool),
            mean=np.array(mean, np.float64),
            deviation=np.array(deviation, np.float64),
            indicator=np.flatnonzero([f.missing_indicator for f in features]).astype(np.int32),
            markers=_markers([rules[f.column].numeric_markers for f in features]),
        )


def _markers(by_feature: list[tuple[float, ...]]) -> np.ndarray:
    """float64 [most, D], as a float32 request holds them; padded with NaN, which equals nothing."""
    most = max(map(len, by_feature), default=0)
    found = np.full((most, len(by_feature)), np.nan)
    for column, own in enumerate(by_feature):
        found[: len(own), column] = np.array(own, np.float32)
    return found


def encode_numeric(wide: tf.Tensor, c: NumericConstants) -> tf.Tensor:
    """float64 [batch, N] -> float32 [batch, D].

    An operation that would change nothing is left out: at one row, they are what a request costs.
    """
    every = np.array_equal(c.column, np.arange(wide.shape[1]))
    x = wide if every else tf.gather(wide, c.column, axis=1)
    present = tf.math.is_finite(x)
    for markers in c.markers:
        present &= x != markers
    x = tf.where(present, x, c.missing_value)
    if np.isfinite(c.high).any():
        x = tf.minimum(x, c.high)
    if np.isfinite(c.low).any():
        x = tf.maximum(x, c.low)
    if c.log1p.any():
        compressed = tf.sign(x) * tf.math.log1p(tf.abs(x))
        x = compressed if c.log1p.all() else tf.where(c.log1p, compressed, x)
    if c.mean.any() or np.any(c.deviation != 1.0):
        x = (x - c.mean) / c.deviation
    if len(c.indicator):
        absent = tf.cast(tf.logical_not(tf.gather(present, c.indicator, axis=1)), tf.float64)
        x = tf.concat([x, absent], axis=1)
    return tf.cast(x, tf.float32)


def encode_buckets(
    x: tf.Tensor,
    feature: NumericFeature,
    boundaries: np.ndarray,
    markers: tuple[float, ...] = (),
) -> tf.Tensor:
    """float64 [batch] -> int32 [batch]: 0 missing, else 1 + the number of boundaries <= x."""
    present = tf.math.is_finite(x)
    for marker in np.array(markers, np.float32).astype(np.float64):
        present &= x != marker
    x = tf.where(present, x, tf.zeros_like(x))
    if feature.clip is not None:
        x = tf.clip_by_value(x, *(np.float64(bound) for bound in feature.clip))
    bucket = 1 + tf.searchsorted(tf.constant(boundaries, tf.float64), x, side="right")
    return tf.where(present, bucket, 0)
