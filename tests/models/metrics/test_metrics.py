"""Metrics: numbers worked by hand, scikit-learn, brute force over pairs, and rows that are odd."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from models.metrics import (
    auc,
    auc_difference_interval,
    auc_interval,
    average_precision,
    bootstrap_intervals,
    calibration_ratio,
    evaluate,
    expected_calibration_error,
    intervals,
    log_loss,
    normalized_entropy,
    ranking_intervals,
    reliability_bins,
    toss_metric,
    weighted_log_loss,
)
from models.metrics.probability import entropy
from pipeline.errors import ConfigError, DataError

# Four rows, two clicks, one tie between the classes at 0.4.
LABEL = [0, 1, 0, 1]
PROBABILITY = [0.1, 0.4, 0.4, 0.8]


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def simulated(rows: int, seed: int, base: float = -4.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = base + rng.standard_normal(rows)
    return (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(float), logits


def test_golden_ranking() -> None:
    # Pairs (click, other): (.4, .1) won, (.4, .4) half, (.8, .1) won, (.8, .4) won: 3.5 of 4.
    assert auc(LABEL, PROBABILITY) == 0.875
    # Weight 3 on the row at .1: won 3 + .5 + 3 + 1 = 7.5 of 2 * 4.
    assert auc(LABEL, PROBABILITY, [3, 1, 1, 1]) == 0.9375
    # Thresholds .8: precision 1, recall +1/2; .4: precision 2/3, recall +1/2.
    assert average_precision(LABEL, PROBABILITY) == pytest.approx(0.5 + 0.5 * 2 / 3, abs=1e-15)


def test_golden_probability_metrics() -> None:
    # -ln(.9 * .4 * .6 * .8) / 4 = (ln 10 - 3 ln 1.2) / 4
    loss = -(math.log(0.9) + math.log(0.4) + math.log(0.6) + math.log(0.8)) / 4
    assert log_loss(LABEL, probability=PROBABILITY) == pytest.approx(0.43890511, abs=5e-9)
    assert log_loss(LABEL, logits=[logit(p) for p in PROBABILITY]) == pytest.approx(loss, abs=1e-15)
    # Mean label 1/2: its entropy is ln 2.
    ne = normalized_entropy(LABEL, probability=PROBABILITY)
    assert ne == pytest.approx(loss / 0.69314718056, abs=1e-11)
    # (.1 + .4 + .4 + .8) / 2
    assert calibration_ratio(LABEL, probability=PROBABILITY) == pytest.approx(0.85, abs=1e-15)
    # Bins [.1, .4, .4 | .8]: the tie at .4 has its middle at exactly half, so it goes up.
    bins = reliability_bins(LABEL, probability=PROBABILITY, num_bins=2)
    assert bins["weight"].tolist() == [1.0, 3.0]
    assert bins["probability"].tolist() == pytest.approx([0.1, 1.6 / 3])
    assert bins["label"].tolist() == pytest.approx([0.0, 2 / 3])
    # (1 * .1 + 3 * (2 - 1.6) / 3) / 4
    ece = expected_calibration_error(LABEL, probability=PROBABILITY, num_bins=2)
    assert ece == pytest.approx(0.125, abs=1e-15)


def test_golden_toss_metric_weighs_the_classes_alike() -> None:
    label, p = [1, 0, 0, 0], [0.5, 0.5, 0.2, 0.2]
    # Click: ln 2. Others: (ln 2 - 2 ln .8) / 3. The click is tied with one of three others: AP 1/2.
    wll = 0.5 * 0.69314718 + 0.5 * (0.69314718 + 2 * 0.22314355) / 3
    assert weighted_log_loss(label, probability=p) == pytest.approx(wll, abs=1e-8)
    assert toss_metric(label, probability=p) == pytest.approx(0.25 + 0.5 / (1 + wll), abs=1e-8)


def test_golden_delong() -> None:
    # Clicks at .4 and .8: placements .75 and 1, mean .875, sample variance 1/32, over 2: 1/64.
    # Others at .1 and .4: placements 1 and .75: 1/64 too. Standard error sqrt(1/32) = .1767767.
    interval = auc_interval(LABEL, PROBABILITY)
    assert interval.estimate == 0.875
    assert interval.standard_error == pytest.approx(0.17677670, abs=5e-9)
    assert interval.low == pytest.approx(0.875 - 1.95996398 * 0.17677670, abs=1e-7)
    assert interval.high == 1.0


rows = st.integers(min_value=2, max_value=40)


@st.composite
def tied_rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Few distinct scores, so ties abound; both classes; some weights zero, never a whole class."""
    n = draw(rows)
    label = draw(hnp.arrays(np.float64, n, elements=st.sampled_from([0.0, 1.0])))
    label[0], label[-1] = 0.0, 1.0
    score = draw(hnp.arrays(np.float64, n, elements=st.integers(-4, 4).map(float)))
    weight = draw(hnp.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.5, 1.0, 3.0])))
    weight[0] = weight[-1] = 1.0
    return label, score, weight


@settings(deadline=None)
@given(tied_rows())
def test_ranking_equals_scikit_learn_and_the_count_of_pairs(rows: tuple) -> None:
    label, score, weight = rows
    won = (score[:, None] > score) + 0.5 * (score[:, None] == score)
    pairs = np.outer(weight * label, weight * (1 - label))
    assert auc(label, score, weight) == pytest.approx((pairs * won).sum() / pairs.sum(), abs=1e-12)
    expected = sk.roc_auc_score(label, score, sample_weight=weight)
    assert auc(label, score, weight) == pytest.approx(expected, abs=1e-12)
    expected = sk.average_precision_score(label, score, sample_weight=weight)
    assert average_precision(label, score, weight) == pytest.approx(expected, abs=1e-12)
    assert auc(label, -score, weight) == pytest.approx(1 - auc(label, score, weight), abs=1e-12)


@settings(deadline=None)
@given(tied_rows(), st.randoms(use_true_random=False))
def test_order_of_rows_and_integer_weights_as_repetition(rows: tuple, random: object) -> None:
    label, score, weight = rows
    order = np.random.default_rng(random.randint(0, 9)).permutation(len(label))  # type: ignore[attr-defined]
    whole = np.rint(weight).astype(int)
    repeated = np.repeat(label, whole), np.repeat(score, whole)
    for metric in (log_loss, normalized_entropy, calibration_ratio, weighted_log_loss):
        value = metric(label, logits=score, weight=whole)
        again = metric(label[order], logits=score[order], weight=whole[order])
        assert again == pytest.approx(value, rel=1e-12)
        assert metric(repeated[0], logits=repeated[1]) == pytest.approx(value, rel=1e-12)
    shuffled = expected_calibration_error(label[order], logits=score[order], weight=whole[order])
    value = expected_calibration_error(label, logits=score, weight=whole)
    assert shuffled == pytest.approx(value, rel=1e-9, abs=1e-12)
    value = toss_metric(label, logits=score, weight=whole)
    assert toss_metric(repeated[0], logits=repeated[1]) == pytest.approx(value, rel=1e-12)
    expected = sk.log_loss(label, 1 / (1 + np.exp(-score)), sample_weight=whole, labels=[0, 1])
    assert log_loss(label, logits=score, weight=whole) == pytest.approx(expected, rel=1e-9)


def test_log_loss_from_logits_neither_overflows_nor_rounds_away() -> None:
    assert log_loss([0.0], logits=[800.0]) == 800.0
    assert log_loss([1.0], logits=[-800.0]) == 800.0
    assert log_loss([0.0], logits=[-40.0]) == pytest.approx(math.exp(-40), rel=1e-12)
    assert log_loss([1.0], logits=[np.inf]) == 0.0
    assert log_loss([0.0], logits=[np.inf]) == math.inf
    assert log_loss([0, 0], logits=[np.inf, 0.0], weight=[0, 1]) == pytest.approx(math.log(2))
    assert log_loss([1, 0], probability=[1.0, 0.0]) == 0.0


def test_true_probabilities_may_stand_for_labels() -> None:
    truth = np.array([0.1, 0.3, 0.6])
    assert calibration_ratio(truth, probability=truth) == 1.0
    assert expected_calibration_error(truth, probability=truth) == 0.0
    assert expected_calibration_error(truth, probability=truth + 0.1) == pytest.approx(0.1)


def test_delong_equals_the_definition_by_pairs() -> None:
    label, score = simulated(300, seed=1, base=-0.5)
    score = np.round(score, 1)  # ties
    x, y = score[label == 1], score[label == 0]
    won = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    variance = won.mean(1).var(ddof=1) / len(x) + won.mean(0).var(ddof=1) / len(y)
    interval = auc_interval(label, score)
    assert interval.estimate == pytest.approx(won.mean(), abs=1e-13)
    assert interval.standard_error == pytest.approx(math.sqrt(variance), rel=1e-10)
    other = score + np.random.default_rng(2).normal(0, 1, 300)
    x, y = other[label == 1], other[label == 0]
    difference = won - ((x[:, None] > y) + 0.5 * (x[:, None] == y))
    v1, v0 = difference.mean(1), difference.mean(0)
    variance = v1.var(ddof=1) / len(x) + v0.var(ddof=1) / len(y)
    paired = auc_difference_interval(label, score, other)
    assert paired.estimate == pytest.approx(difference.mean(), abs=1e-13)
    assert paired.standard_error == pytest.approx(math.sqrt(variance), rel=1e-10)
    weighted = auc_interval(label, score, np.full(300, 2.5))
    assert weighted.standard_error == pytest.approx(interval.standard_error, rel=1e-10)


def test_delong_covers_and_the_pair_is_narrower_than_its_parts() -> None:
    # Truth by symmetry: logits N(-2, 1) tilted; estimated once on 400,000 rows, deviation .0024.
    truth = auc(*simulated(400_000, seed=99, base=-2.0))
    covered, weighted_covered = 0, 0
    rng = np.random.default_rng(0)
    for seed in range(200):
        label, score = simulated(1_500, seed=seed, base=-2.0)
        interval = auc_interval(label, score)
        covered += interval.low <= truth <= interval.high
        weight = rng.exponential(size=1_500)  # independent of everything: the same true AUC
        weighted = auc_interval(label, score, weight)
        weighted_covered += weighted.low <= truth <= weighted.high
    # 190 expected, deviation 3; the truth's own error widens that a little.
    assert 178 <= covered <= 199
    assert 176 <= weighted_covered <= 199
    nearly = score + rng.normal(0, 0.05, 1_500)
    paired = auc_difference_interval(label, score, nearly)
    assert paired.standard_error < 0.2 * interval.standard_error
    assert auc_difference_interval(label, score, score).standard_error == 0.0


def test_bootstrap_agrees_with_the_delta_method() -> None:
    label, logits = simulated(20_000, seed=3, base=-3.0)
    found = bootstrap_intervals(label, logits, num_replicates=400)
    p = 1 / (1 + np.exp(-logits))
    loss = np.logaddexp(0, logits) - label * logits
    ratio = p.mean() / label.mean()
    expected = {
        "log_loss": loss.std() / math.sqrt(20_000),
        "calibration_ratio": (p - ratio * label).std() / math.sqrt(20_000) / label.mean(),
    }
    for name, error in expected.items():
        assert found[name].standard_error == pytest.approx(error, rel=0.12), name
    assert found["log_loss"].estimate == pytest.approx(log_loss(label, logits=logits))
    ne = found["normalized_entropy"]
    assert ne.estimate == pytest.approx(normalized_entropy(label, logits=logits))
    assert ne.low < ne.estimate < ne.high
    assert found == bootstrap_intervals(label, logits, num_replicates=400)
    assert found != bootstrap_intervals(label, logits, num_replicates=400, seed=1)


def test_bootstrap_counts_have_the_moments_of_poisson_one() -> None:
    counts = intervals.poisson_table().astype(float)
    assert counts.mean() == pytest.approx(1.0, abs=1e-4)
    assert counts.var() == pytest.approx(1.0, abs=1e-3)
    assert (counts == 0).mean() == pytest.approx(math.exp(-1), abs=1e-4)


def test_paired_bootstrap_is_of_the_difference_on_the_same_rows() -> None:
    label, logits = simulated(20_000, seed=4, base=-3.0)
    paired = bootstrap_intervals(label, logits, other_logits=logits + 0.1)
    apart = bootstrap_intervals(label, logits)
    difference = log_loss(label, logits=logits) - log_loss(label, logits=logits + 0.1)
    assert paired["log_loss"].estimate == pytest.approx(difference)
    assert paired["log_loss"].standard_error < 0.2 * apart["log_loss"].standard_error
    assert paired["calibration_ratio"].high < 0  # 10 % more is seen clearly
    same = bootstrap_intervals(label, logits, other_logits=logits)
    assert same["log_loss"].low == same["log_loss"].high == 0.0
    weighted = bootstrap_intervals(label, logits, np.full(20_000, 3.0))
    for name, interval in apart.items():
        assert weighted[name].low == pytest.approx(interval.low, rel=1e-9)


def test_ranking_intervals_cover_and_agree_with_drawn_rows() -> None:
    truth = average_precision(*simulated(400_000, seed=99, base=-2.0))
    covered = 0
    for seed in range(100):
        found = ranking_intervals(*simulated(1_500, seed=seed, base=-2.0), num_replicates=100)
        covered += found["average_precision"].low <= truth <= found["average_precision"].high
    assert 86 <= covered <= 100  # 95 expected, deviation 2.2; percentiles of AP are a little short
    label, logits = simulated(2_000, seed=3, base=-2.0)
    logits = np.round(logits, 1)  # ties
    weight = np.random.default_rng(0).integers(1, 4, 2_000).astype(float)
    found = ranking_intervals(label, logits, weight)
    assert found["average_precision"].estimate == pytest.approx(
        average_precision(label, logits, weight), abs=1e-12
    )
    assert found["toss_metric"].estimate == pytest.approx(
        toss_metric(label, logits=logits, weight=weight), abs=1e-12
    )
    rng = np.random.default_rng(5)
    again = []
    for _ in range(300):  # the same bootstrap from scratch: rows drawn with replacement
        rows = rng.integers(0, 2_000, 2_000)
        again.append(toss_metric(label[rows], logits=logits[rows], weight=weight[rows]))
    assert found["toss_metric"].standard_error == pytest.approx(np.std(again), rel=0.2)
    assert found == ranking_intervals(label, logits, weight)
    assert math.isnan(ranking_intervals([], [])["toss_metric"].estimate)
    assert math.isnan(ranking_intervals([0, 0], [0, 1])["average_precision"].low)
    with pytest.raises(ConfigError, match="num_replicates must be at least 2; got 1"):
        ranking_intervals([0, 1], [0, 1], num_replicates=1)


@pytest.mark.parametrize("label", [[], [0], [1], [0, 0, 0], [1, 1]])
def test_an_absent_class_is_nan_and_never_an_exception(label: list[int]) -> None:
    logits = list(np.linspace(-1, 1, len(label)))
    report = evaluate(label, logits)["overall"]
    assert math.isnan(report["auc"])
    assert report["undefined"]
    assert math.isnan(normalized_entropy(label, logits=logits)) or label == []
    assert math.isnan(auc_difference_interval(label, logits, logits).estimate)
    assert math.isnan(bootstrap_intervals(label, logits)["normalized_entropy"].estimate)


def test_one_click_has_an_auc_without_an_interval() -> None:
    interval = auc_interval([0, 0, 1], [0.0, 1.0, 0.5])
    assert interval.estimate == 0.5
    assert math.isnan(interval.low)


def test_evaluate_splits_by_the_most_frequent_values_and_pools_the_rest() -> None:
    label, logits = simulated(2_000, seed=5, base=-1.0)
    values = np.array(["a"] * 1_000 + ["b"] * 600 + ["c"] * 300 + [None] * 99 + ["lone"], object)
    segments = {"site": values, "hour": np.arange(2_000) % 2, "raw": np.array([b"x\xff"] * 2_000)}
    report = evaluate(label, logits, None, segments, top_k=3)
    site = report["segments"]["site"]
    assert {name: m["count"] for name, m in site.items()} == {
        "a": 1_000,
        "b": 600,
        "c": 300,
        "(rest)": 100,
    }
    assert site["b"]["auc"] == auc(label[1_000:1_600], logits[1_000:1_600])
    assert list(report["segments"]["hour"]) == ["0", "1"]
    assert list(report["segments"]["raw"]) == ["x\ufffd"]
    assert sum(m["clicks"] for m in site.values()) == report["overall"]["clicks"]
    everything = evaluate(label, logits, None, {"site": values}, top_k=9)["segments"]["site"]
    assert everything["(missing)"]["count"] == 99
    assert math.isnan(everything["lone"]["auc"])
    assert "not defined" in everything["lone"]["undefined"]
    assert "undefined" not in report["overall"]
    assert report["overall"]["auc_low"] < report["overall"]["auc"] < report["overall"]["auc_high"]
    assert report["overall"]["mean_probability"] == pytest.approx(
        (1 / (1 + np.exp(-logits))).mean()
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: auc([0, 2], [0, 1]), r"labels must be 0 or 1; got 2\.0"),
        (lambda: auc([0, math.nan], [0, 1]), "labels must be 0 or 1; got nan"),
        (lambda: auc([0, 1], [0, math.nan]), "scores must not be NaN; got 1 NaN of 2"),
        (lambda: auc([0, 1], [0, 1, 2]), r"score must have the shape \[2\] .*got \[3\]"),
        (lambda: auc([[0, 1]], [[0, 1]]), r"label must have the shape \[rows\]"),
        (lambda: auc([0, 1], [0, 1], [1, -1]), r"weights must be finite .*got -1\.0"),
        (lambda: log_loss([0], logits=[0], probability=[0]), "exactly one of .*; got both"),
        (lambda: log_loss([0]), "exactly one of .*; got none"),
        (lambda: log_loss([0], probability=[1.5]), r"probabilities must lie .*; got 1\.5"),
        (lambda: log_loss([-1], logits=[0]), "labels must lie between 0 and 1"),
        (lambda: evaluate([0, 1], [0, 1], None, {"s": np.zeros(3)}), "segment s must have"),
        (lambda: auc([0.5], [0]), "labels must be 0 or 1"),
    ],
)
def test_impossible_rows_are_refused(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="level must lie strictly between 0 and 1; got 95"):
        auc_interval([0, 1], [0, 1], level=95)
    with pytest.raises(ConfigError, match="num_bins must be positive; got 0"):
        expected_calibration_error([0], logits=[0], num_bins=0)
    with pytest.raises(ConfigError, match="num_replicates must be at least 2; got 1"):
        bootstrap_intervals([0], [0], num_replicates=1)
    with pytest.raises(ConfigError, match="top_k must be positive; got 0"):
        evaluate([0], [0], top_k=0)


def test_rows_without_weight_do_not_count_as_rows_of_the_interval() -> None:
    label, z = simulated(300, seed=4, base=-1.0)
    expected = auc_interval(label, z)
    rng = np.random.default_rng(0)
    padded = auc_interval(
        np.append(label, rng.random(200) < 0.5),
        np.append(z, rng.normal(size=200)),
        np.append(np.ones(300), np.zeros(200)),
    )
    assert (padded.estimate, padded.standard_error) == pytest.approx(
        (expected.estimate, expected.standard_error), rel=1e-12
    )


def test_a_number_that_is_missing_is_its_own_segment() -> None:
    report = evaluate(
        [0, 1, 0, 1], np.zeros(4), segments={"s": np.array([1.0, 1.0, math.nan, math.nan])}
    )
    assert sorted(report["segments"]["s"]) == ["(missing)", "1.0"]


def test_entropy_of_a_click_rate() -> None:
    assert entropy(0.5) == pytest.approx(math.log(2))
    assert (entropy(0.0), entropy(1.0)) == (0.0, 0.0)
    assert all(math.isnan(entropy(rate)) for rate in (-0.1, 1.1, math.nan))
