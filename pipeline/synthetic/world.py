"""The truth behind the synthetic click log: its columns, their effects, and how rows are drawn.

Every table here is a hash of names: nothing depends on a seed but which rows are drawn.

    logit = intercept + day + hour and id effects + numeric effects + tags
            + sum <u_a, v_b> + sum <u_a, v_b, w_c> + sum u_a * z_n

Additive effects are what a logistic regression can learn; pairwise, third-order and id x numeric
terms (low-rank latent factors of the ids) are what it cannot. The truth depends on nothing but the
row's observed values and its day: a missing value is a value of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = [
    "BLOCK_ROWS",
    "CATEGORICAL",
    "NUMERIC",
    "Array",
    "Block",
    "IdFeature",
    "Ids",
    "Numeric",
    "draw_block",
    "fixed_normal",
    "fixed_uniform",
    "world",
]

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

BLOCK_ROWS = 16_384  # the unit of the random streams: changing it changes every log
START_S = 1_704_067_200  # Monday 2024-01-01 00:00 UTC
DAY_S = 86_400
MAX_TAGS = 8


@dataclasses.dataclass(frozen=True)
class IdFeature:
    """One categorical column: who it is drawn from and how much it matters on its own.

    Attributes:
        prefix: its values are `<prefix><rank>`, rank 0 the most frequent unless it has a parent.
        cardinality: number of distinct values, missing not counted.
        zipf: exponent of the bounded Zipf law (used when `parent` is empty).
        missing: share of rows without a value.
        effect: standard deviation, over ids, of the additive effect on the logit.
        parent: the value is a fixed function of this column's value (an ad has one advertiser).
    """

    prefix: str
    cardinality: int
    zipf: float = 1.1
    missing: float = 0.0
    effect: float = 0.0
    parent: str = ""


@dataclasses.dataclass(frozen=True)
class Numeric:
    """One numeric column, exp(mean + sigma * normal) rounded; counts are rounded down."""

    mean: float
    sigma: float
    count: bool = False
    missing: float = 0.0
    slope: float = 0.0  # effect of z, the standardised log1p of the observed value
    hump: float = 0.0  # effect of z**2


CATEGORICAL: dict[str, IdFeature] = {
    "c1": IdFeature("user", 100_000, zipf=1.05, effect=0.20),
    "c2": IdFeature("ad", 20_000, zipf=1.1, effect=0.20),
    "c3": IdFeature("advertiser", 1_000, effect=0.30, parent="c2"),
    "c4": IdFeature("site", 2_000, zipf=1.2, missing=0.05, effect=0.35),
    "c5": IdFeature("slot", 8, zipf=0.7, effect=0.40),
    "c6": IdFeature("device", 500, zipf=1.1, missing=0.10, effect=0.25),
    "c7": IdFeature("os", 10, zipf=0.9, effect=0.20),
    "c8": IdFeature("city", 5_000, zipf=1.1, missing=0.15, effect=0.15),
    "c9": IdFeature("topic", 20, effect=0.25, parent="c2"),
    "c10": IdFeature("segment", 12, missing=0.20, effect=0.25, parent="c1"),
    "c11": IdFeature("hour", 24, effect=0.20, parent="time"),
    "c12": IdFeature("campaign_code", 300, zipf=1.0, missing=0.30),  # noise
}
NUMERIC: dict[str, Numeric] = {
    "n1": Numeric(mean=1.0, sigma=1.5, slope=0.35),
    "n2": Numeric(mean=1.5, sigma=1.2, count=True, missing=0.10, slope=-0.30),
    "n3": Numeric(mean=-0.5, sigma=2.0, count=True, slope=0.15),
    "n4": Numeric(mean=6.0, sigma=2.0, missing=0.30, slope=-0.15),
    "n5": Numeric(mean=3.0, sigma=1.0, missing=0.05, hump=-0.10),
    "n6": Numeric(mean=2.0, sigma=1.8, missing=0.20),  # noise
}
TAGS = IdFeature("tag", 500, zipf=1.1, effect=0.50)
# (columns, rank of the latent factors, standard deviation of the term)
INTERACTIONS: tuple[tuple[tuple[str, ...], int, float], ...] = (
    (("c9", "c10"), 2, 0.80),
    (("c5", "c7"), 2, 0.70),
    (("c5", "c6"), 1, 0.25),
    (("c1", "c3"), 2, 0.15),
    (("c5", "c7", "c10"), 1, 0.30),
)
ID_NUMERIC: tuple[tuple[str, str, float], ...] = (("c10", "n1", 0.45), ("c5", "n2", 0.45))
DRIFT_STEP, DRIFT_MEMORY = 0.12, 0.8  # day offsets: a mean-reverting walk, deviation about 0.2


def fixed_uniform(name: str, count: int) -> Array:
    """`count` fixed numbers in (0, 1), a hash (splitmix64) of the name and the position."""
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(zlib.crc32(name.encode()) * 0x9E3779B9)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def fixed_normal(name: str, count: int, rank: int = 1) -> Array:
    """Fixed standard normals [count, rank]."""
    return ndtri(fixed_uniform(name, count * rank)).reshape(count, rank)


@dataclasses.dataclass(frozen=True)
class World:
    """The tables every log shares; ids index them, and the last row is 'missing'."""

    zipf_cdf: dict[str, Array]
    child_of: dict[str, Ids]
    values: dict[str, pa.Array]
    effect: dict[str, Array]
    factors: dict[tuple[tuple[str, ...], str], Array]
    slopes: dict[tuple[str, str], Array]
    numeric_missing: dict[str, float]


@functools.lru_cache(maxsize=1)
def world() -> World:
    """The tables of the one world, made once per process (about a second)."""
    features = {**CATEGORICAL, "tags": TAGS}

    def cdf(feature: IdFeature) -> Array:
        mass = np.arange(1, feature.cardinality + 1, dtype=np.float64) ** -feature.zipf
        return np.cumsum(mass) / mass.sum()

    def child(name: str, feature: IdFeature) -> Ids:
        parents = CATEGORICAL[feature.parent].cardinality
        return (fixed_uniform(f"{name} of {feature.parent}", parents) * feature.cardinality).astype(
            int
        )

    def texts(feature: IdFeature) -> pa.Array:
        return pa.array([*(f"{feature.prefix}{i}" for i in range(feature.cardinality)), None])

    return World(
        zipf_cdf={n: cdf(f) for n, f in features.items() if not f.parent},
        child_of={n: child(n, f) for n, f in features.items() if f.parent in CATEGORICAL},
        values={n: texts(f) for n, f in features.items()},
        effect={
            n: f.effect * fixed_normal(f"effect {n}", f.cardinality + 1)[:, 0]
            for n, f in features.items()
        },
        factors={
            (names, n): fixed_normal(f"factor {n} in {names}", features[n].cardinality + 1, rank)
            for names, rank, _ in INTERACTIONS
            for n in names
        },
        slopes={
            (c, n): sd * fixed_normal(f"slope {n} by {c}", features[c].cardinality + 1)[:, 0]
            for c, n, sd in ID_NUMERIC
        },
        numeric_missing={
            n: float(0.2 * fixed_normal(f"missing {n}", 1)[0, 0]) if f.slope or f.hump else 0.0
            for n, f in NUMERIC.items()
        },
    )


@dataclasses.dataclass(frozen=True)
class Block:
    """Drawn rows before the intercept: what is observed, and the logit without its intercept."""

    time_s: Ids  # [rows] epoch seconds
    ids: dict[str, Ids]  # each [rows]
    numeric: dict[str, Array]  # each [rows], NaN is missing
    tag_offsets: Ids  # [rows + 1]
    tag_ids: Ids  # [tag_offsets[-1]]
    logits: Array  # [rows]
    uniform: Array  # [rows] the click is uniform < probability


def _day_offsets(num_days: int, drift: float) -> Array:
    offsets = np.zeros(num_days)
    step = DRIFT_STEP * fixed_normal("day", num_days)[:, 0]
    for day in range(1, num_days):
        offsets[day] = DRIFT_MEMORY * offsets[day - 1] + step[day]
    return drift * offsets


def _times(position: Array, num_days: int) -> Ids:
    """Rising epoch seconds [rows] for rising positions (cut off at 1), with quiet nights."""
    day, within = np.divmod(np.minimum(position * num_days, np.nextafter(num_days, 0.0)), 1.0)
    hours = np.arange(25) / 24
    traffic = hours - 0.6 * np.sin(2 * np.pi * hours) / (2 * np.pi)  # cumulative, 0 at 0 and 1 at 1
    second = np.minimum(np.interp(within, traffic, hours) * DAY_S, DAY_S - 1)
    return START_S + day.astype(np.int64) * DAY_S + second.astype(np.int64)


def draw_block(num_rows: int, num_days: int, seed: int, drift: float, index: int) -> Block:
    """The rows [index * BLOCK_ROWS, (index + 1) * BLOCK_ROWS) of a log of `num_rows` rows.

    Always a full block, drawn in one order; the caller cuts off what lies beyond the log's end.
    """
    tables, n = world(), BLOCK_ROWS
    rng = np.random.default_rng([seed, index])
    position = (np.arange(index * n, (index + 1) * n) + rng.random(n)) / num_rows
    time_s = _times(position, num_days)
    hour = (time_s - START_S) % DAY_S // 3600

    complete: dict[str, Ids] = {"time": hour}
    ids: dict[str, Ids] = {}
    for name, feature in CATEGORICAL.items():
        if feature.parent == "time":
            drawn = hour
        elif feature.parent:
            drawn = tables.child_of[name][complete[feature.parent]]
        else:
            drawn = np.searchsorted(tables.zipf_cdf[name], rng.random(n), side="right")
        complete[name] = drawn
        missing = rng.random(n) < feature.missing
        ids[name] = np.where(missing, feature.cardinality, drawn)

    numeric: dict[str, Array] = {}
    z: dict[str, Array] = {}
    logits = _day_offsets(num_days, drift)[(time_s - START_S) // DAY_S]
    for name, column in NUMERIC.items():
        drawn_value = np.exp(column.mean + column.sigma * rng.standard_normal(n))
        # Rounded first, so that the text in the CSV is exactly the value that the truth has seen.
        value = np.floor(drawn_value) if column.count else np.round(drawn_value, 3)
        missing = rng.random(n) < column.missing
        numeric[name] = np.where(missing, np.nan, value)
        z[name] = np.where(missing, 0.0, (np.log1p(value) - column.mean) / column.sigma)
        logits += column.slope * z[name] + column.hump * z[name] ** 2
        logits += np.where(missing, tables.numeric_missing[name], 0.0)

    for name in CATEGORICAL:
        logits += tables.effect[name][ids[name]]
    for names, rank, deviation in INTERACTIONS:
        product = np.full((n, rank), deviation / math.sqrt(rank))
        for name in names:
            product *= tables.factors[names, name][ids[name]]
        logits += product.sum(axis=1)
    for (id_name, numeric_name), slope in tables.slopes.items():
        logits += slope[ids[id_name]] * z[numeric_name]

    counts = np.minimum(rng.poisson(2.0, n), MAX_TAGS)
    tag_offsets = np.concatenate([[0], np.cumsum(counts)])
    tag_ids = np.searchsorted(tables.zipf_cdf["tags"], rng.random(tag_offsets[-1]), side="right")
    row_of_tag = np.repeat(np.arange(n), counts)
    tag_sum = np.bincount(row_of_tag, weights=tables.effect["tags"][tag_ids], minlength=n)
    logits += tag_sum / np.maximum(counts, 1)
    return Block(time_s, ids, numeric, tag_offsets, tag_ids, logits, rng.random(n))
