"""Simulated clicks on real pictures: a log whose true click probability depends on the ad's image.

The pictures are whatever product photographs there are; nobody ever clicked on them. What a click
depends on is only visible in the picture: what kind of thing it shows, how bright it is and how tall
the thing stands, each on its own and together with the row's columns:

    logit = intercept + effects of site, segment, slot, hour
            + effect of kind + <u_segment, v_kind> + (a + b_slot) * brightness + c * tallness

Every creative belongs to one split, so that a model is judged on pictures that it has never seen:
there is no image id to memorise, and the log has none among its features.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from pipeline.errors import ConfigError
from pipeline.synthetic.world import Array, Ids, fixed_normal

__all__ = ["CREATIVE_SCHEMA", "CreativeLog"]

COLUMNS = {"site": 200, "segment": 8, "slot": 5, "hour": 24}
COLUMN_EFFECT, KIND_EFFECT, KIND_BY_SEGMENT = 0.25, 0.6, 0.6
BRIGHTNESS, BRIGHTNESS_BY_SLOT, TALLNESS = 0.35, 0.35, 0.3
SHARES = {"train": 0.65, "validation": 0.10, "test": 0.25}  # of the creatives of a kind

CREATIVE_SCHEMA = """
name: simulated_creatives  # the clicks are simulated, the pictures are not
source: {kind: parquet}
label: click
features:
  - {name: price, kind: numeric, log1p: true}
  - {name: site, kind: categorical}
  - {name: segment, kind: categorical}
  - {name: slot, kind: categorical}
  - {name: hour, kind: categorical}
  - {name: image, kind: image, height: 28, width: 28, channels: 1}
split: {by: column, column: split}
carry: [true_probability, creative]
"""


@dataclasses.dataclass(frozen=True)
class CreativeLog:
    """Simulated impressions of real pictures; the same arguments give the same rows.

    Args:
        pictures: uint8 [creatives, height, width]; the pixel in a corner is the background.
        kinds: what each shows, [creatives], from 0.
        num_rows: impressions.
        ctr: mean of the true probabilities.
        seed: draws the rows; the truth and the splits are the same for every seed.

    Raises:
        ConfigError: an argument is out of its range, or a kind has too few pictures to split.
    """

    pictures: NDArray[np.uint8]
    kinds: Ids
    num_rows: int
    ctr: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pictures.ndim != 3 or len(self.pictures) != len(self.kinds):
            raise ConfigError(
                "pictures must be [creatives, height, width], with a kind for each",
                f"{list(self.pictures.shape)} and {len(self.kinds)} kinds",
            )
        if self.num_rows < 1 or not 0.0 < self.ctr < 1.0:
            raise ConfigError(
                "num_rows must be positive and ctr strictly between 0 and 1",
                f"num_rows={self.num_rows}, ctr={self.ctr}",
            )
        least = int(np.bincount(self.kinds).min())
        if least < 10:
            raise ConfigError(
                "every kind needs at least 10 pictures, so that each split has some",
                f"{least} pictures of one kind",
                "Leave that kind out.",
            )

    @functools.cached_property
    def split_of_creative(self) -> NDArray[np.str_]:
        """The split of each creative [creatives]: the same shares of every kind."""
        split = np.empty(len(self.kinds), dtype="U10")
        order = np.random.default_rng(0).permutation(len(self.kinds))
        bounds = np.cumsum(list(SHARES.values()))[:-1]
        for kind in np.unique(self.kinds):
            members = order[self.kinds[order] == kind]
            parts = np.split(members, (bounds * len(members)).round().astype(int))
            for name, part in zip(SHARES, parts, strict=True):
                split[part] = name
        return split

    @functools.cached_property
    def looks(self) -> tuple[Array, Array]:
        """(brightness, tallness) of each creative, standardised, each [creatives].

        Brightness is the mean pixel; tallness the log of height over width of the box around what
        is not background.
        """
        pixels = self.pictures.astype(np.float64)
        shown = np.abs(pixels - pixels[:, :1, :1]) > 32  # [creatives, height, width]
        height, width = shown.any(axis=2).sum(axis=1), shown.any(axis=1).sum(axis=1)
        tallness = np.log(np.maximum(height, 1) / np.maximum(width, 1))
        return _standardised(pixels.mean(axis=(1, 2))), _standardised(tallness)

    def table(self) -> pa.Table:
        """All rows: the columns of `CREATIVE_SCHEMA`, `image` as PNG bytes."""
        rng = np.random.default_rng([self.seed, 2])
        creative = rng.integers(0, len(self.kinds), self.num_rows)
        ids = {name: rng.integers(0, count, self.num_rows) for name, count in COLUMNS.items()}
        price = np.round(np.exp(1.0 + rng.standard_normal(self.num_rows)), 3)
        logits = self._logits(creative, ids) - 0.2 * (np.log1p(price) - 1.3)
        intercept = brentq(lambda x: expit(logits + x).mean() - self.ctr, -50.0, 50.0)
        probability = expit(logits + intercept)
        images = pa.DictionaryArray.from_arrays(creative.astype(np.int32), self._encoded())
        return pa.table(
            {
                "click": pa.array((rng.random(self.num_rows) < probability).astype(np.int8)),
                "image": images.cast(pa.binary()),
                "creative": pa.array(creative),
                "price": pa.array(price),
                **{
                    name: pa.array([f"{name}{i}" for i in range(COLUMNS[name])]).take(pa.array(v))
                    for name, v in ids.items()
                },
                "split": pa.array(self.split_of_creative[creative]),
                "true_probability": pa.array(probability),
            }
        )

    def _logits(self, creative: Ids, ids: dict[str, Ids]) -> Array:
        """True logits [rows] without intercept and price."""
        kind, kinds = self.kinds[creative], int(self.kinds.max()) + 1
        brightness, tallness = (look[creative] for look in self.looks)
        logits = KIND_EFFECT * fixed_normal("effect of the picture's kind", kinds)[kind, 0]
        for name, count in COLUMNS.items():
            logits += COLUMN_EFFECT * fixed_normal(f"picture log {name}", count)[ids[name], 0]
        taste = fixed_normal("taste of a segment", COLUMNS["segment"], 2)[ids["segment"]]
        appeal = fixed_normal("appeal of a kind", kinds, 2)[kind]
        logits += KIND_BY_SEGMENT / math.sqrt(2) * (taste * appeal).sum(axis=1)
        slope = BRIGHTNESS_BY_SLOT * fixed_normal("light of a slot", COLUMNS["slot"])[:, 0]
        return logits + (BRIGHTNESS + slope[ids["slot"]]) * brightness + TALLNESS * tallness

    def _encoded(self) -> pa.Array:
        """Each creative as PNG bytes."""
        import tensorflow as tf

        return pa.array(
            [tf.io.encode_png(p[:, :, None]).numpy() for p in self.pictures], pa.binary()
        )


def _standardised(values: Array) -> Array:
    spread = values.std()
    return (values - values.mean()) / (spread if spread > 0 else 1.0)
