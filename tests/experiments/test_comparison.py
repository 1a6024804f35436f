"""The comparison: its answers, many at once, what it is printed as."""

import dataclasses
import json
import math

import numpy as np
import pytest

from experiments.comparison import (
    Answer,
    compare,
    compared_with,
    difference_of,
    holm,
    judged,
    pooled_deviation,
    seeds_needed,
)
from experiments.scores import Rows, Scores
from models.metrics import PairedDifference
from pipeline.errors import ConfigError

RNG = np.random.default_rng(0)
ROWS = 3000
HIDDEN = RNG.normal(-1.0, 1.0, ROWS)
LABEL = (RNG.random(ROWS) < 1 / (1 + np.exp(-HIDDEN))).astype(np.float32)
HOUR = RNG.integers(0, 100, ROWS)


def side(noise, seeds=3, offset=0):
    """Models that see the true logits through noise, one a seed."""
    return [
        Scores.of(
            LABEL,
            HIDDEN + np.random.default_rng([seed, offset]).normal(0, noise, ROWS),
            clusters={"time": HOUR},
        )
        for seed in range(seeds)
    ]


GOOD, POOR, ALIKE = side(0.2), side(1.5, offset=1), side(0.2, offset=2)


def found(estimate, error, metric="log_loss"):
    return PairedDifference(metric, estimate, error, math.inf, error, 0.0, (estimate,) * 2, 9, 9)


@pytest.mark.parametrize(
    "metric, estimate, margin, answer",
    [
        # the half width is 1.96
        ("log_loss", -2.0, 0.0, Answer.BETTER),
        ("log_loss", -1.9, 0.0, Answer.TOO_FEW),
        ("log_loss", -1.9, 0.1, Answer.NO_WORSE),
        ("log_loss", 1.0, 3.0, Answer.NO_WORSE),
        ("log_loss", 1.0, 2.9, Answer.TOO_FEW),
        ("log_loss", 2.0, 0.0, Answer.WORSE),
        ("log_loss", 2.0, 1.0, Answer.TOO_FEW),  # worse, and perhaps by less than is allowed
        ("log_loss", 2.0, 4.0, Answer.NO_WORSE),
        ("log_loss", 3.0, 1.0, Answer.WORSE),
        ("auc", 2.0, 0.0, Answer.BETTER),
        ("auc", -2.0, 0.0, Answer.WORSE),
        ("auc", -2.0, 4.0, Answer.NO_WORSE),
        ("auc", 1.9, 0.0, Answer.TOO_FEW),
        ("normalized_entropy", -2.0, 0.0, Answer.BETTER),
    ],
)
def test_the_answer_by_hand(metric, estimate, margin, answer):
    assert judged(found(estimate, 1.0, metric), margin=margin).answer is answer


def test_what_is_not_known_is_too_few_rows():
    nothing = dataclasses.replace(found(0.0, math.nan), degrees_of_freedom=math.nan)
    assert judged(nothing, margin=9.0).answer is Answer.TOO_FEW
    one_class = Scores.of(np.zeros(50), np.linspace(-1, 1, 50))
    assert compare([one_class], [one_class], "auc").answer is Answer.TOO_FEW


def test_a_better_model_is_found_and_swapped_it_is_worse():
    better, worse = compare(GOOD, POOR, cluster="time"), compare(POOR, GOOD, cluster="time")
    assert (better.answer, worse.answer) == (Answer.BETTER, Answer.WORSE)
    assert (better.difference, better.low, better.high) == (
        -worse.difference,
        -worse.high,
        -worse.low,
    )
    assert compare(GOOD, POOR, "auc").answer is Answer.BETTER
    assert better.clusters == 100 and better.cluster == "time" and better.seeds == 3
    assert abs(better.difference) > better.detectable > 0


def test_two_names_for_one_cell_are_exactly_equal():
    same = compare(GOOD, [Scores(s.rows, s.logits.copy(), s.raw) for s in GOOD], names=("a", "b"))
    assert (same.difference, same.low, same.high, same.detectable) == (0.0, 0.0, 0.0, 0.0)
    assert same.answer is Answer.NO_WORSE and same.p_value == 1.0


def test_too_few_rows_say_so_and_what_they_could_have_found():
    few = np.arange(ROWS) < 40
    cut = compare([s.take(few) for s in GOOD], [s.take(few) for s in ALIKE])
    assert cut.answer is Answer.TOO_FEW and cut.rows == 40
    assert cut.low < 0 < cut.high and cut.detectable > 2.7 * cut.standard_error


def test_the_answer_of_raw_logits_may_be_another():
    calibrated = [Scores(s.rows, s.logits, s.raw + 3.0) for s in GOOD]
    assert compare(calibrated, POOR).answer is Answer.BETTER
    assert compare(calibrated, POOR, raw=True).answer is Answer.WORSE


def test_holm_by_hand():
    """p of .01, .04, .03, .005: times 4, 3, 2, 1 in order, never falling."""
    levels, adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # the third in order fails (2 * .03 > .05): it and all after stay at 1 - .05 / 2
    assert levels == pytest.approx([1 - 0.05 / 3, 0.975, 0.975, 1 - 0.05 / 4])
    assert [list(x) for x in holm([0.2])] == [[0.95], [0.2]]
    assert holm([])[0].shape == (0,)
    levels, adjusted = holm([0.001, math.nan])
    assert adjusted[0] == pytest.approx(0.002) and math.isnan(adjusted[1])


def test_an_interval_at_its_level_leaves_out_zero_where_the_adjusted_p_is_small():
    rng = np.random.default_rng(3)
    for _ in range(50):
        each = [found(float(e), 1.0) for e in rng.normal(0, 2.5, 6)]
        levels, adjusted = holm([e.p_value() for e in each])
        for one, level, p in zip(each, levels, adjusted, strict=True):
            interval = one.interval(level)
            assert (not interval.low <= 0 <= interval.high) == (p < 0.05)


def test_many_comparisons_with_nothing_in_them_rarely_name_a_winner():
    """Five candidates that are as good as the other, 60 times: about 1 in 20 in all, not 1 in 4."""
    named = {False: 0, True: 0}
    for turn in range(60):
        other = side(0.3, seeds=1, offset=1000 + turn)
        candidates = {str(i): side(0.3, seeds=1, offset=2000 + 10 * turn + i) for i in range(5)}
        corrected = compared_with(other, candidates)
        alone = [compare(ours, other) for ours in candidates.values()]
        for is_corrected, several in ((True, corrected), (False, alone)):
            named[is_corrected] += any(c.answer in (Answer.BETTER, Answer.WORSE) for c in several)
    assert named[True] <= 6 < named[False]


def test_candidates_keep_their_names_and_order():
    both = compared_with(POOR, {"good": GOOD, "alike": ALIKE}, name="poor", cluster="time")
    assert [(c.ours, c.other) for c in both] == [("good", "poor"), ("alike", "poor")]
    assert {c.answer for c in both} == {Answer.BETTER}
    assert all(c.p_adjusted >= c.p_value for c in both)
    assert sorted(c.level for c in both) == pytest.approx([0.95, 0.975])


def test_pooled_seeds_have_more_degrees_of_freedom():
    """Three pairs of three seeds: 2 x 3 / (1 + 2 / 4) = 4."""
    pairs = [difference_of(ours, POOR) for ours in (GOOD, ALIKE, side(0.4, offset=7))]
    pooled = pooled_deviation(pairs)
    assert pooled.degrees_of_freedom == pytest.approx(4.0)
    variances = [np.var(p.by_seed, ddof=1) for p in pairs]
    assert pooled.deviation == pytest.approx(math.sqrt(np.mean(variances)))
    assert pooled_deviation([difference_of(GOOD[:1], POOR[:1])]) is None
    several = compared_with(POOR, {"a": GOOD, "b": ALIKE}, pool_seeds=True)
    assert all(c.answer is Answer.BETTER for c in several)


def test_how_many_seeds_by_hand():
    """2 (2.8 x .002 / .001)^2 = 62.8 with 2.8016 for 2.8."""
    assert seeds_needed(0.002, 0.001) == 63
    assert seeds_needed(0.0, 0.001) == 2
    with pytest.raises(ConfigError, match="difference to find must be positive; got 0"):
        seeds_needed(0.1, 0.0)


def test_it_is_plain_data_and_a_line():
    found = compare(GOOD[:1], POOR[:1], names=("layer", "batch"))
    raw = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (raw["answer"], raw["seed_error"], raw["ours"]) == ("better", None, "layer")
    assert len(raw["by_seed"]) == 1
    text = str(found)
    assert "against batch: better" in text and "3,000 rows, 1 seed, test rows' error alone" in text
    assert f"detectable {found.detectable:.5f}" in text
    assert "clusters of time, 3 seeds)" in str(compare(GOOD, POOR, cluster="time"))


def test_what_cannot_be_paired_is_refused():
    others = [Scores.of(1 - LABEL, HIDDEN)]
    with pytest.raises(ConfigError, match=r"compared on the same rows; got 3,000 rows \("):
        compare(GOOD[:1], others)
    with pytest.raises(ConfigError, match="at least one; got 3 against 1"):
        compare(GOOD, POOR[:1])
    with pytest.raises(ConfigError, match=r"got 'user'\. Choose from: time"):
        compare(GOOD, POOR, cluster="user")
    with pytest.raises(ConfigError, match="known of log_loss, auc, normalized_entropy"):
        compare(GOOD, POOR, "calibration_ratio")
    with pytest.raises(ConfigError, match="margin must not be negative; got -1"):
        compare(GOOD, POOR, margin=-1)


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = Rows(LABEL, np.ones(ROWS, np.float32), {"time": HOUR.astype(np.int32)}, HIDDEN)
    rows.save(tmp_path / "rows.npz")
    back = Rows.load(tmp_path / "rows.npz")
    assert back.fingerprint == rows.fingerprint and list(back.clusters) == ["time"]
    np.testing.assert_array_equal(back.clusters["time"], HOUR)
    np.testing.assert_array_equal(back.truth, HIDDEN)
    changed = LABEL.copy()
    changed[5] = 1 - changed[5]
    assert Rows(changed, rows.weight).fingerprint != Rows(LABEL, rows.weight).fingerprint
