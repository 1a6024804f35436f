"""The synthetic log with ads around the target ad: what DSTN reads, and a truth that uses it.

Every row has the ads beside the target on the page (contextual), and those that the user clicked and
passed over before (unclicked). Ads are alike when their topics are; what a kind of ads does to the
logit is an interaction with the target, so that no sum of effects of single columns contains it:

    likeness(t, i) = max(0, u_topic(t) . u_topic(i)), u of unit length
    logit += sum over kinds of effect * (1 - exp(-sum over the kind's ads i of likeness(t, i)))

Clicked ads that are like the target raise the probability, unclicked ones lower it, and like ads
beside it compete. The columns of `SyntheticLog` are the same rows for the same seed.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pyarrow as pa

from pipeline.synthetic.log import SyntheticLog, join_texts
from pipeline.synthetic.world import (
    CATEGORICAL,
    Array,
    Block,
    Ids,
    fixed_normal,
    fixed_uniform,
    world,
)

__all__ = ["AD_KINDS", "AdKind", "SequenceLog"]

AD, TOPIC = "c2", "c9"
TOPIC_RANK = 4
_STREAM = 1  # beside the base log's stream of the same seed and block


@dataclasses.dataclass(frozen=True)
class AdKind:
    """One kind of auxiliary ads: how many a row has, whose taste they follow, what they do.

    Attributes:
        mean_count: of the Poisson number of ads, cut off at `max_count`.
        max_count: most ads of a row; the preset's max_length.
        taste_of: the column whose value has two favourite topics.
        taste: share of the ads from these topics; the others follow the ads' own frequency.
        effect: on the logit, of many ads that are like the target.
    """

    mean_count: float
    max_count: int
    taste_of: str
    taste: float
    effect: float


AD_KINDS: dict[str, AdKind] = {
    "contextual": AdKind(2.0, 4, taste_of="c4", taste=0.5, effect=-1.2),
    "clicked": AdKind(3.0, 8, taste_of="c1", taste=0.6, effect=2.4),
    "unclicked": AdKind(4.0, 8, taste_of="c1", taste=0.2, effect=-1.8),
}


@dataclasses.dataclass(frozen=True)
class AdTables:
    """Fixed tables over ads and topics; nothing here depends on a seed."""

    by_topic: Ids  # [ads] ads ordered by topic
    cumulative: Array  # [ads] their shares of the log's ads, summed up in that order
    topic_share: Array  # [topics + 1] where each topic begins in `cumulative`
    likeness: Array  # [topics, topics]
    favourites: dict[str, Ids]  # [values + 1, 2] by column


@functools.lru_cache(maxsize=1)
def ad_tables() -> AdTables:
    """The tables behind the auxiliary ads."""
    topic_of_ad, topics = world().child_of[TOPIC], CATEGORICAL[TOPIC].cardinality
    by_topic = np.argsort(topic_of_ad, kind="stable")
    share = np.diff(world().zipf_cdf[AD], prepend=0.0)
    per_topic = np.bincount(topic_of_ad, weights=share, minlength=topics)
    direction = fixed_normal("likeness of topics", topics, TOPIC_RANK)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)

    def favourites(name: str) -> Ids:
        count = CATEGORICAL[name].cardinality + 1  # the last value is "missing"
        drawn = fixed_uniform(f"favourite topics of {name}", 2 * count) * topics
        return drawn.astype(np.int64).reshape(count, 2)

    return AdTables(
        by_topic=by_topic,
        cumulative=np.cumsum(share[by_topic]),
        topic_share=np.concatenate([[0.0], np.cumsum(per_topic)]),
        likeness=np.maximum(direction @ direction.T, 0.0),
        favourites={k.taste_of: favourites(k.taste_of) for k in AD_KINDS.values()},
    )


@dataclasses.dataclass(frozen=True)
class SequenceBlock(Block):
    """A block with its auxiliary ads: kind -> (offsets [rows + 1], ads [offsets[-1]])."""

    ads: dict[str, tuple[Ids, Ids]]


def _draw_ads(kind: AdKind, block: Block, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """The auxiliary ads of a block's rows."""
    tables = ad_tables()
    counts = np.minimum(rng.poisson(kind.mean_count, len(block.logits)), kind.max_count)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    total = int(offsets[-1])
    whose = np.repeat(block.ids[kind.taste_of], counts)
    topic = tables.favourites[kind.taste_of][whose, rng.integers(0, 2, total)]
    low, high = tables.topic_share[topic], tables.topic_share[topic + 1]
    by_taste = rng.random(total) < kind.taste
    point = rng.random(total)
    point = np.where(by_taste, low + point * (high - low), point * tables.topic_share[-1])
    last = len(tables.by_topic) - 1  # rounding may put a point behind the last share
    found = np.minimum(np.searchsorted(tables.cumulative, point, side="right"), last)
    return offsets, tables.by_topic[found]


def _effect_of_ads(kind: AdKind, target: Ids, offsets: Ids, ads: Ids) -> Array:
    """What one kind of ads adds to the logits [rows] of the target ads [rows]."""
    topic_of_ad = world().child_of[TOPIC]
    row = np.repeat(np.arange(len(target)), np.diff(offsets))
    likeness = ad_tables().likeness[topic_of_ad[target[row]], topic_of_ad[ads]]
    total = np.bincount(row, weights=likeness, minlength=len(target))
    return kind.effect * -np.expm1(-total)


@dataclasses.dataclass(frozen=True)
class SequenceLog(SyntheticLog):
    """`SyntheticLog` with auxiliary ads (the arguments are its own).

    Further columns, for kind in contextual, clicked, unclicked: `<kind>_ads` ("ad7|ad12", values of
    c2, "" for none) and `<kind>_topics`, the topics of the same ads in the same order (values of
    c9). They are in no order of time: the truth does not use one.
    """

    def _block(self, index: int) -> SequenceBlock:
        block = super()._block(index)
        rng = np.random.default_rng([self.seed, index, _STREAM])
        ads = {name: _draw_ads(kind, block, rng) for name, kind in AD_KINDS.items()}
        logits = block.logits + sum(
            _effect_of_ads(kind, block.ids[AD], *ads[name]) for name, kind in AD_KINDS.items()
        )
        fields = {f.name: getattr(block, f.name) for f in dataclasses.fields(block)}
        return SequenceBlock(**{**fields, "logits": logits}, ads=ads)

    def _columns(self, block: Block) -> dict[str, pa.Array]:
        if not isinstance(block, SequenceBlock):
            raise TypeError(
                f"a SequenceLog must be given its own blocks; got {type(block).__name__}"
            )
        values, topic_of_ad = world().values, world().child_of[TOPIC]
        columns = super()._columns(block)
        for name, (offsets, ads) in block.ads.items():
            columns[f"{name}_ads"] = join_texts(offsets, ads, values[AD])
            columns[f"{name}_topics"] = join_texts(offsets, topic_of_ad[ads], values[TOPIC])
        return columns
