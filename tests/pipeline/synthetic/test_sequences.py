"""The log with ads around the target ad: its truth uses them as its docstring says."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from pipeline.schema import FeatureSchema, SequenceColumn
from pipeline.synthetic.log import SyntheticLog, write_log
from pipeline.synthetic.sequences import AD_KINDS, SequenceLog
from pipeline.synthetic.world import world

ROWS = 40_000


def table(log: SyntheticLog, chunk_rows: int = 65_536) -> pa.Table:
    return pa.Table.from_batches(log.batches(chunk_rows))


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return table(SequenceLog(ROWS, ctr=0.1, drift=0.0))


def split(column: pa.ChunkedArray) -> list[list[str]]:
    return [text.split("|") if text else [] for text in column.to_pylist()]


def test_the_columns_of_the_plain_log_are_the_same_rows(rows: pa.Table) -> None:
    plain = table(SyntheticLog(ROWS, ctr=0.1, drift=0.0))
    same = [c for c in plain.column_names if c not in ("click", "true_probability")]
    assert rows.select(same).equals(plain.select(same))
    assert not rows["true_probability"].equals(plain["true_probability"])
    assert rows["true_probability"].to_numpy().mean() == pytest.approx(0.1, rel=1e-6)


def test_the_same_arguments_give_the_same_rows_whatever_the_chunks(rows: pa.Table) -> None:
    log = SequenceLog(ROWS, ctr=0.1, drift=0.0)
    assert table(log, 7_777).equals(rows)
    other = table(SequenceLog(ROWS, ctr=0.1, drift=0.0, seed=1))
    assert not other["clicked_ads"].equals(rows["clicked_ads"])


def test_topics_are_those_of_the_ads_in_their_order(rows: pa.Table) -> None:
    topic_of_ad = world().child_of["c9"]
    for kind, drawn in AD_KINDS.items():
        ads, topics = split(rows[f"{kind}_ads"]), split(rows[f"{kind}_topics"])
        for some, theirs in zip(ads[:500], topics[:500], strict=True):
            assert [f"topic{topic_of_ad[int(ad[2:])]}" for ad in some] == theirs
        counts = np.array([len(a) for a in ads])
        assert (counts.min(), counts.max()) == (0, drawn.max_count)
        assert counts.mean() == pytest.approx(drawn.mean_count, rel=0.1)


def test_the_effect_worked_by_hand_for_single_rows(rows: pa.Table) -> None:
    """Differences of true logits between the two logs are the sequences' effect plus a constant."""
    from pipeline.synthetic.sequences import ad_tables

    plain = table(SyntheticLog(ROWS, ctr=0.1, drift=0.0))
    found = logit(rows["true_probability"].to_numpy()) - logit(plain["true_probability"].to_numpy())
    likeness = ad_tables().likeness
    expected = []
    for i in range(200):
        target, total = int(rows["c9"][i].as_py()[5:]), 0.0
        for kind, effect in (("contextual", -1.2), ("clicked", 2.4), ("unclicked", -1.8)):
            topics = [int(t[5:]) for t in split(rows[f"{kind}_topics"].slice(i, 1))[0]]
            total += effect * (1 - np.exp(-sum(likeness[target, t] for t in topics)))
        expected.append(total)
    np.testing.assert_allclose(found[:200] - found[0], np.array(expected) - expected[0], atol=1e-9)
    assert likeness.min() == 0
    np.testing.assert_allclose(np.diag(likeness), 1.0)


def test_like_clicked_ads_raise_and_like_unclicked_or_contextual_ads_lower(rows: pa.Table) -> None:
    """Seen in the clicks themselves: rows with an ad of the target's own topic against those with none."""
    click, target = rows["click"].to_numpy(), rows["c9"].to_pylist()
    for kind, sign in (("clicked", 1), ("unclicked", -1), ("contextual", -1)):
        topics = split(rows[f"{kind}_topics"])
        like = np.array([t in some for t, some in zip(target, topics, strict=True)])
        some = np.array([bool(t) for t in topics])
        difference = click[like].mean() - click[some & ~like].mean()
        error = np.sqrt(0.1 * 0.9 * (1 / like.sum() + 1 / (some & ~like).sum()))
        assert sign * difference > 3 * error, kind


def test_without_the_sequences_much_of_the_bayes_auc_is_out_of_reach(rows: pa.Table) -> None:
    """The plain log's logit is the rest of the truth: the best that a model without them can know."""
    plain = table(SyntheticLog(ROWS, ctr=0.1, drift=0.0))["true_probability"].to_numpy()
    click, p = rows["click"].to_numpy(), rows["true_probability"].to_numpy()
    assert roc_auc_score(click, p) - roc_auc_score(click, plain) > 0.04


def test_tastes_make_sequences_of_a_user_alike(rows: pa.Table) -> None:
    """Two of a user's clicked ads share a topic more often than two ads of different users."""
    first = [t[:2] for t in split(rows["clicked_topics"]) if len(t) > 1]
    within = np.mean([a == b for a, b in first])
    across = np.mean([a[0] == b[1] for a, b in itertools.pairwise(first)])
    assert within > across + 0.1


def test_the_preset_keeps_every_ad_and_shares_the_targets_vocabularies() -> None:
    schema = FeatureSchema.load("synthetic_sequences")
    by_name = {f.name: f for f in schema.features if isinstance(f, SequenceColumn)}
    for kind, drawn in AD_KINDS.items():
        for suffix, owner in (("ads", "c2"), ("topics", "c9")):
            feature = by_name[f"{kind}_{suffix}"]
            assert (feature.max_length, feature.vocabulary_of) == (drawn.max_count, owner)
    assert schema.carry == ("true_probability",)


def test_files_are_the_same_bytes_every_time(tmp_path) -> None:
    log = SequenceLog(2_000)
    one = write_log(log, tmp_path / "a")[0].read_bytes()
    two = write_log(log, tmp_path / "b", chunk_rows=999)[0].read_bytes()
    assert hashlib.sha256(one).hexdigest() == hashlib.sha256(two).hexdigest()
