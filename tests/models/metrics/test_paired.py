"""Paired differences: by hand, against plain loops, against the bootstrap, and their coverage."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.metrics import (
    PAIRED_METRICS,
    SeedDeviation,
    auc_difference_interval,
    bootstrap_intervals,
    calibration_ratio,
    log_loss,
    normalized_entropy,
    paired_difference,
)
from pipeline.errors import ConfigError, DataError


def drawn(rng, rows=400, seeds=3, rate=0.3, noise=0.3):
    label = (rng.random(rows) < rate).astype(float)
    base = rng.normal(-1.0, 0.8, rows) + label
    sides = [
        [base + rng.normal(0, noise, rows) + rng.normal(0, 0.05) for _ in range(seeds)]
        for _ in range(2)
    ]
    return label, *sides, rng.integers(1, 4, rows).astype(float)


def test_by_hand():
    """Two rows with logits 0 against ln 3: losses ln 2, ln 2 against ln 4 (no click), ln 4/3 (click)."""
    found = paired_difference("log_loss", [0, 1], [[0.0, 0.0]], [[math.log(3)] * 2])
    rows = [math.log(2) - math.log(4), math.log(2) - math.log(4 / 3)]
    assert found.estimate == pytest.approx(sum(rows) / 2)
    # the standard error of a mean of two: |a - b| / 2
    assert found.standard_error == pytest.approx(abs(rows[0] - rows[1]) / 2)
    assert (found.rows, found.clusters, math.isnan(found.seed_error)) == (2, 2, True)


def test_one_training_without_clusters_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    label, (ours,), (other,), _ = drawn(rng, seeds=1)
    found = paired_difference("log_loss", label, [ours], [other])
    losses = [np.logaddexp(0, z) - label * z for z in (ours, other)]
    expected = stats.ttest_rel(*losses)
    assert found.estimate / found.standard_error == pytest.approx(expected.statistic)
    assert found.p_value() == pytest.approx(expected.pvalue, rel=0.05)


def test_the_auc_without_clusters_is_delongs():
    rng = np.random.default_rng(1)
    label, (ours,), (other,), weight = drawn(rng, seeds=1)
    for w in (None, weight):
        found = paired_difference("auc", label, [ours], [other], w)
        expected = auc_difference_interval(label, ours, other, w)
        assert found.estimate == pytest.approx(expected.estimate, abs=1e-12)
        assert found.standard_error == pytest.approx(expected.standard_error, rel=2e-3)


def test_clusters_seeds_and_weights_against_plain_loops():
    """The two-way analysis of variance, written with loops over seeds, clusters and rows."""
    rng = np.random.default_rng(2)
    label, ours, other, weight = drawn(rng)
    codes = rng.integers(0, 25, len(label))
    found = paired_difference("log_loss", label, ours, other, weight, codes)
    seeds, clusters = 3, 25
    by_seed, sums = [], np.zeros((seeds, clusters))
    for s in range(seeds):
        row = [
            np.logaddexp(0, a) - y * a - (np.logaddexp(0, b) - y * b)
            for y, a, b in zip(label, ours[s], other[s], strict=True)
        ]
        mean = sum(w * d for w, d in zip(weight, row, strict=True)) / weight.sum()
        by_seed.append(mean)
        for w, d, c in zip(weight, row, codes, strict=True):
            sums[s, c] += w * (d - mean) / weight.sum()
    of_rows = clusters / (clusters - 1) * sum(sums[:, c].mean() ** 2 for c in range(clusters))
    of_both = clusters / (clusters - 1) / (seeds - 1) / seeds
    of_both *= sum(
        (sums[s, c] - sums[:, c].mean()) ** 2 for s in range(seeds) for c in range(clusters)
    )
    of_seeds = stats.sem(by_seed) ** 2
    assert found.estimate == pytest.approx(np.mean(by_seed))
    assert found.by_seed == pytest.approx(by_seed)
    assert found.row_error**2 == pytest.approx(of_rows)
    assert found.seed_error**2 == pytest.approx(max(of_seeds - of_both, 0))
    assert found.standard_error**2 == pytest.approx(of_rows + max(of_seeds - of_both, 0))
    assert found.clusters == clusters


@pytest.mark.parametrize("metric", PAIRED_METRICS)
@pytest.mark.parametrize("clustered", [False, True])
def test_every_metric_has_the_error_of_the_bootstrap(metric, clustered):
    rng = np.random.default_rng(3)
    rows, groups = 3000, 150
    codes = np.repeat(np.arange(groups), rows // groups)
    shared = rng.normal(0, 0.6, groups)[codes]
    label = (rng.random(rows) < 1 / (1 + np.exp(1.2 - shared))).astype(float)
    ours, other = (rng.normal(-1.2, 0.7, rows) + f * shared for f in (0.2, 1.0))
    weight = rng.integers(1, 3, rows).astype(float)
    clusters = codes if clustered else None
    found = paired_difference(metric, label, [ours], [other], weight, clusters)
    if metric == "auc":
        by_cluster = [np.flatnonzero(codes == g) for g in range(groups)]
        values = []
        for _ in range(400):
            chosen = np.concatenate([by_cluster[g] for g in rng.integers(0, groups, groups)])
            chosen = chosen if clustered else rng.integers(0, rows, rows)
            part = (label[chosen], ours[chosen], other[chosen], weight[chosen])
            values.append(auc_difference_interval(*part).estimate)
        error = np.std(values, ddof=1)
    else:
        expected = bootstrap_intervals(label, ours, weight, other, clusters, num_replicates=600)[
            metric
        ]
        assert found.estimate == pytest.approx(expected.estimate, abs=1e-12)
        error = expected.standard_error
    assert found.standard_error == pytest.approx(error, rel=0.12)


@pytest.mark.parametrize(
    "metric, of", [("log_loss", log_loss), ("normalized_entropy", normalized_entropy)]
)
def test_values_are_the_metrics_own(metric, of):
    label, (ours,), (other,), weight = drawn(np.random.default_rng(4), seeds=1)
    found = paired_difference(metric, label, [ours], [other], weight)
    expected = of(label, logits=ours, weight=weight) - of(label, logits=other, weight=weight)
    assert found.estimate == pytest.approx(expected)
    ratio = paired_difference("calibration_ratio", label, [ours], [other], weight)
    of_both = [calibration_ratio(label, logits=z, weight=weight) for z in (ours, other)]
    assert ratio.estimate == pytest.approx(of_both[0] - of_both[1])


@pytest.mark.parametrize("metric", PAIRED_METRICS)
@given(seed=st.integers(0, 10_000), seeds=st.integers(1, 3), clustered=st.booleans())
def test_swapping_the_sides_only_turns_the_sign(metric, seed, seeds, clustered):
    rng = np.random.default_rng(seed)
    label, ours, other, weight = drawn(rng, 60, seeds)
    codes = rng.integers(0, 9, 60) if clustered else None
    one = paired_difference(metric, label, ours, other, weight, codes)
    two = paired_difference(metric, label, other, ours, weight, codes)
    a, b = one.interval(), two.interval()
    assert (a.estimate, a.low, a.high) == (-b.estimate, -b.high, -b.low)
    assert (one.p_value(), one.detectable()) == (two.p_value(), two.detectable())
    same = paired_difference(metric, label, ours, ours, weight, codes)
    assert (same.estimate, same.standard_error, same.p_value()) == (0.0, 0.0, 1.0)
    assert (same.interval().low, same.interval().high, same.detectable()) == (0.0, 0.0, 0.0)


def test_clusters_that_hang_together_widen_the_interval():
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(40), 50)
    of_cluster = rng.normal(0, 1.0, 40)[codes]
    label = (rng.random(2000) < 1 / (1 + np.exp(1 - of_cluster))).astype(float)
    ours, other = rng.normal(-1, 0.5, (2, 2000))
    ours += 0.5 * of_cluster  # knows the cluster, which is about as good for all of its rows
    alone = paired_difference("log_loss", label, [ours], [other])
    together = paired_difference("log_loss", label, [ours], [other], None, codes)
    assert together.standard_error > 1.3 * alone.standard_error
    assert together.estimate == alone.estimate and together.degrees_of_freedom < 40


def test_the_seeds_error_is_in_the_interval():
    """Every training of one side is .1 +- .1 off on all rows: rows alone would find that certain."""
    rng = np.random.default_rng(6)
    label = (rng.random(20_000) < 0.3).astype(float)
    base = rng.normal(1, 0.5, 20_000)  # predicts far too many clicks: a shift counts
    shifts = (0.0, 0.1, 0.2)
    found = paired_difference("log_loss", label, [base + s for s in shifts], [base] * 3)
    assert found.seed_error > 5 * found.row_error
    assert found.standard_error**2 == pytest.approx(found.row_error**2 + found.seed_error**2)
    assert found.degrees_of_freedom == pytest.approx(2, abs=0.2)
    # 4.30 is Student's t of 2 degrees of freedom
    half = (found.interval().high - found.interval().low) / 2
    assert half == pytest.approx(4.30 * found.standard_error, rel=0.03)


def test_a_known_deviation_of_seeds_takes_the_place_of_their_own():
    label, ours, other, _ = drawn(np.random.default_rng(7), seeds=1)
    alone = paired_difference("log_loss", label, ours, other)
    known = paired_difference(
        "log_loss", label, ours, other, seed_deviation=SeedDeviation(0.02, 10.0)
    )
    assert math.isnan(alone.seed_error) and known.seed_error == 0.02
    assert known.standard_error == pytest.approx(math.hypot(alone.standard_error, 0.02))
    assert known.degrees_of_freedom < alone.degrees_of_freedom


def test_what_can_be_detected_is_found_in_four_of_five():
    """2.8 standard errors where the errors are known well."""
    label, ours, other, _ = drawn(np.random.default_rng(8), rows=4000, seeds=1)
    found = paired_difference("log_loss", label, ours, other)
    assert found.detectable() == pytest.approx(2.8016 * found.standard_error, rel=0.01)
    few = dataclasses.replace(found, degrees_of_freedom=2.0)
    assert few.detectable() == pytest.approx((4.3027 + 1.0607) * found.standard_error, rel=1e-3)
    # by simulation: an estimate that far from zero on average, with that standard error
    rng = np.random.default_rng(9)
    estimates = rng.normal(found.detectable(), found.standard_error, 4000)
    hits = [dataclasses.replace(found, estimate=float(e)).interval().low > 0 for e in estimates]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(
    "seeds, of_trainings, clusters, metric, least, most",
    [
        (1, 0.0, None, "log_loss", 0.02, 0.09),
        (3, 0.0, None, "auc", 0.005, 0.08),  # no noise of trainings: a little too wide
        (3, 0.1, None, "log_loss", 0.02, 0.09),
        (3, 0.05, 60, "log_loss", 0.02, 0.10),
    ],
)
def test_no_difference_is_refused_about_five_times_in_a_hundred(
    seeds, of_trainings, clusters, metric, least, most
):
    rng = np.random.default_rng(10)
    rejected, rows = 0, 600
    for _ in range(300):
        label = (rng.random(rows) < 0.25).astype(float)
        base = rng.normal(-1.2, 0.7, rows)
        codes = None if clusters is None else rng.integers(0, clusters, rows)
        of_cluster = 0.0 if codes is None else rng.normal(0, 0.2, clusters)[codes]
        sides = [
            [
                base + sign * of_cluster + rng.normal(0, 0.2, rows) + rng.normal(0, of_trainings)
                for _ in range(seeds)
            ]
            for sign in (-0.5, 0.5)
        ]
        if codes is not None:  # labels by the base, so that both sides are as good on average
            label = (rng.random(rows) < 1 / (1 + np.exp(-base))).astype(float)
        interval = paired_difference(metric, label, *sides, None, codes).interval()
        rejected += not interval.low <= 0.0 <= interval.high
    assert least <= rejected / 300 <= most


def test_without_the_shared_part_taken_out_once_the_interval_would_be_too_wide():
    """Trainings of one config differ on every row and not on average: the rows' error is all there is."""
    rng = np.random.default_rng(11)
    errors, estimates = [], []
    label = (rng.random(4000) < 0.25).astype(float)
    base = rng.normal(-1.2, 0.7, 4000)
    for _ in range(200):
        sides = [[base + rng.normal(0, 0.3, 4000) for _ in range(4)] for _ in range(2)]
        found = paired_difference("log_loss", label, *sides)
        errors.append(found.standard_error**2)
        estimates.append(found.estimate)
    assert np.mean(errors) == pytest.approx(np.var(estimates), rel=0.4)


def test_few_clicks_count_as_few():
    label = np.zeros(5000)
    label[:8] = 1
    rng = np.random.default_rng(12)
    ours, other = rng.normal(-6, 0.1, 5000), rng.normal(-6, 0.1, 5000)
    ours[:8] += 1.0
    found = paired_difference("log_loss", label, [ours], [other])
    assert found.degrees_of_freedom < 40


@pytest.mark.parametrize("label, clusters", [([0, 0, 0], None), ([0, 1, 1], [1, 1, 1]), ([], None)])
def test_what_is_not_defined_is_nan(label, clusters):
    z = np.linspace(-1, 1, len(label))
    found = paired_difference("auc", label, [z], [-z], None, clusters)
    assert math.isnan(found.standard_error) and math.isnan(found.p_value())
    assert math.isnan(found.interval().low) and math.isnan(found.detectable())


def test_what_is_asked_wrongly_is_refused():
    z = [0.0, 1.0]
    with pytest.raises(ConfigError, match="paired metric is one of log_loss"):
        paired_difference("accuracy", [0, 1], [z], [z])
    with pytest.raises(ConfigError, match="in pairs, at least one; got 1 against 2"):
        paired_difference("auc", [0, 1], [z], [z, z])
    with pytest.raises(DataError, match="clusters must have the shape"):
        paired_difference("auc", [0, 1], [z], [z], None, [1, 2, 3])
    with pytest.raises(DataError, match="scores must not be NaN"):
        paired_difference("log_loss", [0, 1], [[0.0, math.nan]], [z])
    with pytest.raises(ConfigError, match="level"):
        paired_difference("auc", [0, 1], [z], [z]).interval(1.0)


def test_the_degrees_of_freedom_of_rows_and_seeds_together_by_plain_loops():
    """Satterthwaite's, of three parts: rows, trainings, and what trainings do to each row by itself."""
    rng = np.random.default_rng(5)
    rows, seeds = 60, 4
    label = (rng.random(rows) < 0.4).astype(float)
    base = rng.normal(0, 1, rows)
    ours = [base + rng.normal(0, 0.2, rows) + shift for shift in (-0.6, 0.1, 0.5, 0.9)]
    found = paired_difference("log_loss", label, ours, [base] * seeds)
    change = np.array([np.logaddexp(0, z) - label * z for z in ours])
    change -= np.logaddexp(0, base) - label * base
    sums = (change - change.mean(axis=1, keepdims=True)) / rows
    small, squares = rows / (rows - 1), sums.mean(axis=0) ** 2
    of_rows, of_seeds = small * squares.sum(), change.mean(axis=1).var(ddof=1) / seeds
    of_both = small * ((sums - sums.mean(axis=0)) ** 2).sum() / (seeds - 1) / seeds
    assert of_seeds > of_both > 0
    # a sum of unequal squares counts for fewer: twice its square over its variance
    effective = (
        2
        * squares.sum() ** 2
        / (squares**2).sum()
        / (1 - squares.sum() ** 2 / (squares**2).sum() / rows)
    )
    row_freedom = min(effective, rows - 1)
    parts = of_rows**2 / row_freedom
    parts += of_seeds**2 / (seeds - 1) + of_both**2 / ((seeds - 1) * row_freedom)
    variance = of_rows + of_seeds - of_both
    assert found.standard_error**2 == pytest.approx(variance)
    assert found.degrees_of_freedom == pytest.approx(variance**2 / parts)


def test_rows_that_all_weigh_alike_have_one_degree_of_freedom_less_than_their_number():
    # every row's loss changes by -+ln 3 / 2 to the last bit: no row makes more of the sum than another
    z = np.array([0.5, -0.5, 0.5, -0.5])
    found = paired_difference("calibration_ratio", [1, 1, 1, 1], [z], [-z])
    assert found.degrees_of_freedom == 3.0


@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1]])
def test_normalized_entropy_without_one_of_the_classes_is_nan(label):
    z = np.linspace(-1, 1, 3)
    found = paired_difference("normalized_entropy", label, [z], [-z])
    assert math.isnan(found.estimate) and math.isnan(found.standard_error)


@pytest.mark.parametrize("metric", ["log_loss", "normalized_entropy"])
def test_a_row_without_weight_costs_nothing_even_at_infinite_loss(metric):
    rng = np.random.default_rng(6)
    label, (ours,), (other,), _ = drawn(rng, seeds=1, rows=50)
    expected = paired_difference(metric, label, [ours], [other])
    found = paired_difference(
        metric,
        np.append(label, 1.0),
        [np.append(ours, -math.inf)],
        [np.append(other, 0.0)],
        np.append(np.ones(50), 0.0),
    )
    assert found.estimate == pytest.approx(expected.estimate)
    assert math.isfinite(found.standard_error)
