"""The calibration ratio's interval: by hand, over clusters, and what is concluded from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit

from models.metrics import (
    CalibrationVerdict,
    bootstrap_intervals,
    calibration_interval,
    calibration_verdict,
    evaluate,
)
from models.metrics.intervals import Interval
from pipeline.errors import ConfigError, DataError


def test_two_clusters_by_hand() -> None:
    # Predictions 1/2 each: sums (1, 1) and (1, 1) against clicks 2 and 1: shares 1/2, 1/2 and 2/3, 1/3.
    # var = 2/1 * (2 * (1/6)^2) = 1/9; t of one degree of freedom at 97.5 % is 12.7062.
    label = [1, 1, 1, 0]
    found = calibration_interval(label, np.zeros(4), clusters=["a", "a", "b", "b"])
    assert found.estimate == pytest.approx(2 / 3)
    assert found.standard_error == pytest.approx(1 / 3)
    assert found.high == pytest.approx(2 / 3 * math.exp(12.706204736 / 3), rel=1e-6)
    assert found.low == pytest.approx(2 / 3 * math.exp(-12.706204736 / 3), rel=1e-6)


def test_single_rows_agree_with_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(-3.0, 1.0, 20_000)
    label = (rng.random(20_000) < expit(logit)).astype(float)
    weight = rng.uniform(0.5, 2.0, 20_000)
    drawn = bootstrap_intervals(label, logit, weight, num_replicates=800)["calibration_ratio"]
    found = calibration_interval(label, logit, weight)
    assert found.estimate == pytest.approx(drawn.estimate)
    assert (found.low, found.high) == pytest.approx((drawn.low, drawn.high), abs=0.006)


def test_days_that_rise_and_fall_widen_the_interval_and_it_covers() -> None:
    rng = np.random.default_rng(1)
    day = np.repeat(np.arange(30), 400)
    covered = {"rows": 0, "days": 0}
    for _ in range(200):
        truth = expit(-2.0 + 0.5 * rng.normal(size=30)[day])
        label = (rng.random(len(day)) < truth).astype(float)
        mean = float(np.mean(expit(-2.0 + 0.5 * rng.normal(size=100_000))))
        logit = np.full(len(day), math.log(mean / (1 - mean)))
        for name, clusters in (("rows", None), ("days", day)):
            found = calibration_interval(label, logit, clusters=clusters)
            covered[name] += found.low <= 1.0 <= found.high
    assert covered["days"] >= 176  # 95 % of 200, less three deviations of the count
    assert covered["rows"] < 140


def test_evaluate_reports_the_clustered_interval() -> None:
    rng = np.random.default_rng(2)
    day = np.repeat(np.arange(10), 200)
    logit = np.full(2_000, -2.0)
    label = (rng.random(2_000) < expit(-2.0 + rng.normal(size=10)[day])).astype(float)
    expected = calibration_interval(label, logit, clusters=day)
    found = evaluate(label, logit, num_replicates=50, clusters=day)["overall"]
    assert found["calibration_ratio_low"] == expected.low
    assert found["calibration_ratio_high"] == expected.high
    with pytest.raises(DataError, match="clusters must have the shape"):
        evaluate(label, logit, clusters=day[1:])


def test_no_clicks_and_one_cluster_are_not_defined() -> None:
    assert math.isnan(calibration_interval([0, 0], [0.0, 0.0]).estimate)
    alone = calibration_interval([1, 0], [0.0, 0.0], clusters=[3, 3])
    assert alone.estimate == 1.0
    assert math.isnan(alone.low)
    assert calibration_verdict(alone) is CalibrationVerdict.TOO_FEW


def interval(estimate: float, factor: float) -> Interval:
    return Interval(estimate, estimate / factor, estimate * factor, math.log(factor) / 2)


@pytest.mark.parametrize(
    "ratio, rates, expected",
    [
        (interval(1.1, 2.0), None, CalibrationVerdict.WITHIN),
        (interval(2.0, 1.1), None, CalibrationVerdict.OFF),
        (interval(2.0, 2.0), None, CalibrationVerdict.TOO_FEW),
        (interval(2.0, 1.1), (0.02, 0.01), CalibrationVerdict.DRIFT),
        (interval(2.0, 1.1), (0.02, 0.019), CalibrationVerdict.OFF),
        (interval(2.0, 1.1), (0.01, 0.02), CalibrationVerdict.OFF),  # it moved the other way
        (interval(0.5, 1.1), (0.01, 0.02), CalibrationVerdict.DRIFT),
    ],
)
def test_what_is_concluded(
    ratio: Interval, rates: tuple[float, float] | None, expected: CalibrationVerdict
) -> None:
    fitted = interval(1.0, 1.05)
    assert calibration_verdict(ratio, fitted=fitted, base_rates=rates) is expected
    off_before = interval(2.0, 1.05)
    verdict = calibration_verdict(ratio, fitted=off_before, base_rates=rates)
    assert verdict is not CalibrationVerdict.DRIFT


def test_a_band_around_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lies around 1; got \[1.1, 2.0\]"):
        calibration_verdict(interval(1.0, 1.1), (1.1, 2.0))
