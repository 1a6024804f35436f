"""Calibration: the loss undone exactly, the residual recovered, the same bits in any batch."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from models import losses, metrics
from models.calibration import (
    Calibration,
    IdentityCalibrator,
    IsotonicCalibrator,
    LossCorrection,
    PlattCalibrator,
    fit_calibration,
)
from models.calibration.correction import click_pull
from models.calibration.residual_fits import (
    CannotFitError,
    fit_isotonic,
    fit_platt,
    fit_platt_with_prior,
)
from models.config.train import BinaryCrossEntropyConfig, FocalConfig, PosWeightConfig
from pipeline.errors import ConfigError, DataError

FOCAL = {"focal_alpha": 0.25, "focal_gamma": 2.0}
KNOTS = ([-5.0, -3.0, -1.0], [-4.0, -3.5, -0.5])
CALIBRATIONS = {
    "none": Calibration(),
    "pos_weight": Calibration(LossCorrection(pos_weight=49.0), PlattCalibrator(0.9, -0.2)),
    "sampled": Calibration(LossCorrection(negative_keep_rate=0.1)),
    "focal": Calibration(LossCorrection(**FOCAL), PlattCalibrator(1.1, 0.05)),
    "isotonic": Calibration(LossCorrection(pos_weight=3.0), IsotonicCalibrator(*KNOTS)),
}


def corrected(correction: LossCorrection, z: object) -> np.ndarray:
    return correction.correct(tf.constant(z, tf.float64)).numpy()


def simulated(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True log odds and labels; about 2.7 % clicks."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-4.0, 1.0, rows)
    return truth, (rng.random(rows) < expit(truth)).astype(float)


def test_golden_shifts() -> None:
    # ln 20 = 2.995732274, ln 0.1 = -2.302585093.
    assert corrected(LossCorrection(pos_weight=20.0), 1.0) == pytest.approx(-1.995732274, abs=1e-9)
    sampled = LossCorrection(negative_keep_rate=0.1)
    assert corrected(sampled, 1.0) == pytest.approx(-1.302585093, abs=1e-9)
    both = LossCorrection(pos_weight=20.0, negative_keep_rate=0.1)
    assert corrected(both, 1.0) == pytest.approx(1 - 2.995732274 - 2.302585093, abs=1e-9)


def test_golden_focal() -> None:
    # At q = 1/2 both h are equal: only ln((1 - a) / a) = ln 3 is left.
    assert corrected(LossCorrection(**FOCAL), 0.0) == pytest.approx(1.098612289, abs=1e-9)
    # Gamma 0 is alpha-weighted cross entropy, at alpha 1/2 cross entropy itself.
    plain = LossCorrection(focal_alpha=0.5, focal_gamma=0.0)
    assert corrected(plain, [-7.0, 0.3]) == pytest.approx([-7.0, 0.3], abs=1e-12)
    # q = 0.2, g = 1, a = 1/2, from the formula: h(q) = q / (1 - q - q ln q)
    #   h(.2) = .2 / (.8 + .2 * 1.6094379) = .2 / 1.1218876 = .1782710
    #   h(.8) = .8 / (.2 + .8 * .2231436) = .8 / .3785148 = 2.1135235
    #   odds .08434777, log odds -2.4728070
    one = LossCorrection(focal_alpha=0.5, focal_gamma=1.0)
    assert corrected(one, math.log(0.25)) == pytest.approx(-2.4728070, abs=1e-7)


@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.5, 1.0), (0.9, 0.5), (0.75, 5.0)])
@pytest.mark.parametrize("p", [0.001, 0.02, 0.3, 0.5, 0.97])
def test_the_minimiser_of_the_expected_focal_loss_is_mapped_to_its_log_odds(
    alpha: float, gamma: float, p: float
) -> None:
    def risk(z: float) -> float:
        q = expit(z)
        click = alpha * (1 - q) ** gamma * np.logaddexp(0, -z)
        return p * click + (1 - p) * (1 - alpha) * q**gamma * np.logaddexp(0, z)

    best = minimize_scalar(risk, bounds=(-12, 12), method="bounded", options={"xatol": 1e-10}).x
    link = LossCorrection(focal_alpha=alpha, focal_gamma=gamma)
    assert corrected(link, best) == pytest.approx(logit(p), abs=2e-5 * (gamma + 1))


@pytest.mark.parametrize(
    "config",
    [
        BinaryCrossEntropyConfig(),
        PosWeightConfig(pos_weight=30.0),
        FocalConfig(alpha=0.25, gamma=2.0),
        FocalConfig(alpha=0.9, gamma=0.5),
        FocalConfig(alpha=0.5, gamma=7.0),
    ],
)
def test_the_trained_loss_is_stationary_where_its_correction_says(config: object) -> None:
    """The gradient of the loss in training, at p from its correction, is zero at every logit."""
    z = tf.constant(np.linspace(-9, 9, 36), tf.float64)
    log_odds = LossCorrection.of_loss(config).correct(z)  # type: ignore[arg-type]

    def value(label: tf.Tensor) -> tf.Tensor:
        if isinstance(config, FocalConfig):
            return losses.focal_loss(label, z, config.alpha, config.gamma)
        if isinstance(config, PosWeightConfig):
            return losses.pos_weighted_cross_entropy(label, z, float(config.pos_weight))
        return losses.binary_cross_entropy(label, z)

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        click, no_click = value(tf.ones_like(z)), value(tf.zeros_like(z))
    pull = tf.sigmoid(log_odds) * tape.gradient(click, z)
    push = tf.sigmoid(-log_odds) * tape.gradient(no_click, z)
    np.testing.assert_allclose(-pull, push, rtol=1e-9)


@pytest.mark.parametrize(
    "config, rate, pull",
    [
        (BinaryCrossEntropyConfig(), 0.02, 1.0),
        (PosWeightConfig(pos_weight=10.0), 0.02, 10 / 1.18),  # w / (1 - r + w r)
        (PosWeightConfig(pos_weight=49.0), 0.02, 25.0),  # balanced
        (PosWeightConfig(pos_weight=10.0), 0.5, 10 / 5.5),
        (FocalConfig(alpha=0.5, gamma=0.0), 0.3, 0.5),  # half of cross entropy
        # q = .2 and r = .07778616, the odds of `test_golden_focal`:
        #   .5 * .8 * (.8 + .2 * 1.6094379) / (1 - r) = .4487550 / .9222138
        (FocalConfig(alpha=0.5, gamma=1.0), 0.07778616, 0.4866063),
        (PosWeightConfig(pos_weight=10.0), 0.0, 1.0),
        (FocalConfig(), 1.0, 1.0),
    ],
)
def test_how_hard_a_click_pulls_by_hand(config: object, rate: float, pull: float) -> None:
    assert click_pull(config, rate) == pytest.approx(pull, rel=1e-5)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(
    alpha=st.floats(0.01, 0.99),
    gamma=st.floats(0.0, 10.0),
    rate=st.floats(1e-4, 0.999),
)
def test_any_focal_loss_pulls_by_a_positive_finite_number(
    alpha: float, gamma: float, rate: float
) -> None:
    assert 0.0 < click_pull(FocalConfig(alpha=alpha, gamma=gamma), rate) < math.inf


@settings(deadline=None, max_examples=40)
@given(
    alpha=st.floats(0.01, 0.99),
    gamma=st.floats(0.0, 10.0),
    z=st.floats(-1e30, 1e30) | st.floats(-50, 50),
    step=st.floats(1e-3, 1e3),
)
def test_focal_correction_rises_and_is_finite_everywhere(
    alpha: float, gamma: float, z: float, step: float
) -> None:
    link = LossCorrection(focal_alpha=alpha, focal_gamma=gamma)
    low, high = corrected(link, [z, z + step])
    assert np.isfinite([low, high]).all()
    assert high > low or z + step == z
    # Mirror symmetry: classes swapped, alpha swapped.
    mirrored = corrected(LossCorrection(focal_alpha=1 - alpha, focal_gamma=gamma), -z)
    assert mirrored == pytest.approx(-low, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_a_row_has_the_same_bits_in_any_batch(name: str) -> None:
    calibration = CALIBRATIONS[name]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)], autograph=False)
    def graph(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return calibration.logits(z), calibration.probability(z)

    z = np.random.default_rng(0).normal(-3, 4, 8192).astype(np.float32)
    whole = np.stack([t.numpy() for t in graph(z)])
    assert whole.dtype == np.float32
    assert np.isfinite(whole).all()
    for size, stop in ((1, 300), (7, 2_100)):
        parts = [np.stack(graph(z[i : i + size])) for i in range(0, stop, size)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole[:, :stop])
    np.testing.assert_allclose(whole[1], expit(whole[0].astype(np.float64)), rtol=1e-6)
    assert graph(z[:0])[0].shape == (0,)
    np.testing.assert_array_equal(calibration.logits(z.reshape(64, 128)), whole[0].reshape(64, 128))


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_strictly_rising_and_never_nan(name: str) -> None:
    far = [-np.inf, -3e38, -1e4, -500.0]
    z = np.array([*far, *np.linspace(-60, 60, 999), *(-v for v in reversed(far))], np.float32)
    answer = CALIBRATIONS[name].logits(z).numpy()
    assert not np.isnan(answer).any()
    assert (np.diff(answer[2:-2]) > 0).all()
    assert answer[0] == -np.inf
    assert answer[-1] == np.inf
    assert CALIBRATIONS[name].probability(z).numpy()[[0, -1]].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_json_and_saved_model_round_trip_to_the_bit(name: str, tmp_path: Path) -> None:
    calibration = CALIBRATIONS[name]
    again = Calibration.from_config(json.loads(json.dumps(calibration.to_config())))
    assert again.to_config() == calibration.to_config()
    z = np.linspace(-12, 6, 1_001).astype(np.float32)

    module = tf.Module()
    module.calibration = calibration
    module.serve = tf.function(
        calibration.logits, input_signature=[tf.TensorSpec([None], tf.float32)], autograph=False
    )
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    expected = module.serve(z).numpy()
    np.testing.assert_array_equal(loaded.serve(z), expected)
    np.testing.assert_array_equal(tf.function(again.logits, autograph=False)(z), expected)


def test_golden_residuals() -> None:
    z = np.array([-6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 1.0], np.float32)
    # Knots (-5, -4), (-3, -3.5), (-1, -.5): slopes 1/4 and 3/2, beyond them 1.
    isotonic = Calibration(residual=IsotonicCalibrator(*KNOTS)).logits(z)
    assert isotonic.numpy().tolist() == [-5.0, -4.0, -3.75, -3.5, -2.0, -0.5, 1.5]
    platt = Calibration(residual=PlattCalibrator(2.0, 1.0)).logits(z)
    assert platt.numpy().tolist() == [-11.0, -9.0, -7.0, -5.0, -3.0, -1.0, 3.0]
    single = Calibration(residual=IsotonicCalibrator([0.0], [0.5])).logits(z)
    np.testing.assert_allclose(single, z + 0.5)


@pytest.mark.parametrize("residual", ["platt", "isotonic"])
@pytest.mark.parametrize("slope, offset", [(1.0, 0.0), (0.6, 1.2), (2.5, -3.0)])
def test_a_known_miscalibration_is_recovered(residual: str, slope: float, offset: float) -> None:
    truth, label = simulated(150_000, seed=1)
    raw = slope * truth + offset
    calibration, report = fit_calibration(raw, label, residual=residual)  # type: ignore[arg-type]
    assert (report.kind, report.reason) == (residual, "")
    fresh, fresh_label = simulated(100_000, seed=2)
    p = calibration.probability(tf.constant(slope * fresh + offset, tf.float32)).numpy()
    # About 4,000 clicks: the mean is known to 1.6 %, the bins less well.
    assert p.mean() / expit(fresh).mean() == pytest.approx(1.0, abs=0.04)
    error = metrics.expected_calibration_error(expit(fresh), probability=p)
    assert error < 0.0015
    assert report.calibrated["calibration_ratio"] == pytest.approx(1.0, abs=1e-6)
    assert report.calibrated["log_loss"] <= report.corrected["log_loss"] + 1e-5
    if offset:
        assert abs(report.raw["calibration_ratio"] - 1) > 0.2
    # Neither changes a rank.
    auc = metrics.auc(fresh_label, slope * fresh + offset)
    assert metrics.auc(fresh_label, calibration.logits(slope * fresh + offset)) == pytest.approx(
        auc, abs=1e-6
    )
    if residual == "platt":
        fitted = calibration.to_config()["residual"]
        # The slope's deviation is about .016 in units of the true log odds.
        assert fitted["slope"] * slope == pytest.approx(1.0, abs=0.05)


def test_platt_is_the_minimum_of_the_weighted_log_loss() -> None:
    truth, label = simulated(20_000, seed=3)
    weight = np.random.default_rng(0).integers(0, 4, 20_000)
    raw = 1.7 * truth - 0.4
    calibration, _ = fit_calibration(raw, label, weight)
    fitted = calibration.to_config()["residual"]
    p = expit(fitted["slope"] * raw + fitted["intercept"])
    # At the minimum the weighted residuals have mean zero and are uncorrelated with the logits.
    assert abs(np.average(p - label, weights=weight)) < 1e-12
    assert abs(np.average((p - label) * raw, weights=weight)) < 1e-11
    # Whole weights are repetitions.
    repeated = np.repeat(raw, weight), np.repeat(label, weight)
    again = fit_calibration(*repeated)[0].to_config()["residual"]
    assert again["slope"] == pytest.approx(fitted["slope"], rel=1e-9)
    assert again["intercept"] == pytest.approx(fitted["intercept"], rel=1e-9)


def test_isotonic_bends_where_a_line_cannot() -> None:
    truth, label = simulated(150_000, seed=4)
    raw = np.where(truth < -3.5, truth, -3.5 + 3 * (truth + 3.5))
    _, line = fit_calibration(raw, label)
    calibration, curve = fit_calibration(raw, label, residual="isotonic")
    assert curve.calibrated["log_loss"] < line.calibrated["log_loss"] - 1e-4
    fresh, _ = simulated(100_000, seed=5)
    bent = np.where(fresh < -3.5, fresh, -3.5 + 3 * (fresh + 3.5))
    p = calibration.probability(bent).numpy()
    assert metrics.expected_calibration_error(expit(fresh), probability=p) < 0.0015


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_down_sampling_and_pos_weight_are_undone_on_simulated_training(rate: float) -> None:
    """Weighted maximum likelihood on the kept rows, then the correction, against all rows."""
    truth, label = simulated(200_000, seed=6)
    kept = (label == 1) | (np.random.default_rng(1).random(len(label)) < rate)
    pos_weight = 5.0
    weight = np.where(label == 1, pos_weight, 1.0)
    trained, _ = fit_calibration(truth[kept], label[kept], weight[kept])
    raw = trained.logits(truth).numpy()
    loss = PosWeightConfig(pos_weight=pos_weight)
    corrected_p = Calibration(LossCorrection.of_loss(loss, rate)).probability(raw).numpy()
    assert expit(raw).mean() / expit(truth).mean() > 3
    assert corrected_p.mean() / expit(truth).mean() == pytest.approx(1.0, abs=0.03)
    assert metrics.expected_calibration_error(expit(truth), probability=corrected_p) < 0.001


def reason_of(raw: object, label: object, **options: object) -> str:
    calibration, report = fit_calibration(raw, label, **options)  # type: ignore[arg-type]
    assert isinstance(calibration.residual, IdentityCalibrator)
    assert report.kind == "identity"
    return report.reason


@pytest.mark.parametrize("residual", ["platt", "isotonic"])
def test_rows_that_determine_nothing_leave_the_identity_and_say_so(residual: str) -> None:
    truth, label = simulated(2_000, seed=7)
    assert "0 clicks" in reason_of([], [], residual=residual)
    assert "0 clicks, fewer than 1" in reason_of([0.0], [0], residual=residual, min_clicks=0)
    assert "0 rows without a click" in reason_of(
        np.zeros(200), np.ones(200), residual=residual, min_clicks=9
    )
    weightless = np.where(label == 1, 0.0, 1.0)
    assert "0 clicks" in reason_of(truth, label, weight=weightless, residual=residual)


@pytest.mark.parametrize("residual", ["platt", "isotonic"])
@pytest.mark.parametrize("scarce", [0, 1])
def test_min_clicks_of_each_class_are_enough_and_one_less_is_not(residual, scarce) -> None:
    rng = np.random.default_rng(3)
    label = np.array([scarce] * 20 + [1 - scarce] * 400)
    raw = rng.normal(size=420) + label
    _, report = fit_calibration(raw, label, residual=residual, min_clicks=20)
    assert (report.kind, report.reason) == (residual, "")
    name = "clicks" if scarce else "rows without a click"
    for options in ({"min_clicks": 21}, {"min_clicks": 20, "weight": np.arange(420) > 0}):
        _, few = fit_calibration(raw, label, residual=residual, **options)
        count = 20 if "weight" not in options else 19  # a row without weight is none
        assert few.kind == "platt"
        assert few.reason.startswith(f"{count} {name}, fewer than {count + 1}: {residual} was not")


def test_rows_of_one_logit_are_never_split_between_knots() -> None:
    # 1,400 clicks make 28 bins; all clicks have one of three logits, so that most bins are empty
    raw = np.repeat([-1.0, 0.0, 1.0], [1000, 1000, 1000])
    label = np.concatenate([np.arange(1000) < clicks for clicks in (200, 300, 900)]).astype(int)
    for order in (np.arange(3000), np.random.default_rng(0).permutation(3000)):
        calibration, report = fit_calibration(raw[order], label[order], residual="isotonic")
        assert report.kind == "isotonic"
        probability = calibration.probability(np.array([-1.0, 0.0, 1.0])).numpy()
        np.testing.assert_allclose(probability, [0.2, 0.3, 0.9], atol=1e-3)


@pytest.mark.parametrize("residual", ["platt", "isotonic"])
def test_few_clicks_have_a_prior_at_the_identity_and_the_report_says_so(residual: str) -> None:
    truth, label = simulated(2_000, seed=7)
    _, report = fit_calibration(truth + math.log(4.0), label, residual=residual)  # type: ignore[arg-type]
    assert report.kind == "platt"
    assert report.reason.startswith(
        f"{int(label.sum())} clicks, fewer than 100: {residual} was not"
    )
    assert "prior at the identity" in report.reason
    # Four times too many clicks are predicted; the prior is worth about one of the clicks.
    assert report.corrected["calibration_ratio"] > 3
    assert report.calibrated["calibration_ratio"] == pytest.approx(1.0, abs=0.15)
    inside = report.calibrated["calibration_ratio_low"], report.calibrated["calibration_ratio_high"]
    assert inside[0] < 1 < inside[1]


def test_platt_with_a_prior_by_hand() -> None:
    # Ten rows with the logit 1, four clicks: 10 sigmoid(1 + b) - 4 + b is 0 at b = -1.
    label = np.array([1.0] * 4 + [0.0] * 6)
    fitted = fit_platt_with_prior(np.ones(10), label, np.ones(10))
    assert (fitted.slope, fitted.intercept) == pytest.approx((1.0, -1.0), abs=1e-6)
    # Every row twice, or of another weight: the sum doubles, the weight's scale does not count.
    heavier = fit_platt_with_prior(np.ones(10), label, np.full(10, 7.0))
    assert heavier.intercept == pytest.approx(-1.0, abs=1e-6)


def test_a_prior_bounds_what_a_few_rows_may_claim() -> None:
    z, label = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0.0, 0.0, 1.0, 1.0])
    separated = fit_platt_with_prior(z, label, np.ones(4))
    backward = fit_platt_with_prior(z, 1 - label, np.ones(4))
    assert 1.0 < separated.slope < 1.28
    assert 0.6 < backward.slope < 1.0
    many = simulated(50_000, seed=3)
    with_prior = fit_platt_with_prior(2 * many[0] + 1, many[1], np.ones(50_000))
    without = fit_platt(2 * many[0] + 1, many[1], np.ones(50_000))
    assert with_prior.slope == pytest.approx(without.slope, rel=0.02)


def test_platt_refuses_backward_and_separated_logits() -> None:
    truth, label = simulated(20_000, seed=8)
    assert "clicks have the lower logits" in reason_of(-truth, label)
    assert "separate the classes" in reason_of(label * 2 - 1, label)
    assert "lower logits" in reason_of(1 - label * 2, label)


@pytest.mark.parametrize("residual", ["platt", "isotonic"])
def test_one_logit_for_all_rows_becomes_the_mean(residual: str) -> None:
    label = np.zeros(10_000)
    label[:200] = 1
    calibration, report = fit_calibration(
        np.full(10_000, 1.5),
        label,
        residual=residual,  # type: ignore[arg-type]
    )
    assert report.kind == residual
    assert calibration.probability([1.5]).numpy()[0] == pytest.approx(0.02, rel=1e-6)


@pytest.mark.parametrize("residual", ["platt", "isotonic"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0])
def test_wild_scales_are_fitted_or_refused_but_never_nan(residual: str, scale: float) -> None:
    truth, label = simulated(30_000, seed=9)
    calibration, report = fit_calibration(
        truth * scale,
        label,
        residual=residual,  # type: ignore[arg-type]
    )
    p = calibration.probability(truth * scale).numpy()
    assert np.isfinite(p).all()
    if residual == "platt":
        assert report.kind == "platt"
        assert p.mean() == pytest.approx(label.mean(), rel=1e-4)


def test_identity_on_request_reports_without_a_reason() -> None:
    truth, label = simulated(2_000, seed=7)
    assert reason_of(truth, label, residual="identity") == ""


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: LossCorrection(pos_weight=0.0), r"pos_weight must be positive .*got 0\.0"),
        (lambda: LossCorrection(negative_keep_rate=0.0), r"must lie in \(0, 1\]; got 0\.0"),
        (lambda: LossCorrection(negative_keep_rate=1.5), r"must lie in \(0, 1\]; got 1\.5"),
        (lambda: LossCorrection(focal_alpha=0.5), "belong together"),
        (lambda: LossCorrection(focal_alpha=1.0, focal_gamma=1.0), "focal_alpha must lie"),
        (lambda: LossCorrection(focal_alpha=0.5, focal_gamma=-1.0), "focal_gamma must be"),
        (lambda: LossCorrection.of_loss(PosWeightConfig()), "got balanced. Call resolve_loss"),
        (lambda: PlattCalibrator(-1.0, 0.0), "positive slope"),
        (lambda: IsotonicCalibrator([0.0, 0.0], [0.0, 1.0]), "rise strictly"),
        (lambda: IsotonicCalibrator([], []), "rise strictly"),
        (lambda: fit_calibration([0.0], [1], residual="spline"), "known kind; got spline"),  # type: ignore[arg-type]
        (
            lambda: Calibration.from_config({"correction": {}, "residual": {"kind": "x"}}),
            "known one; got x. Allowed: identity, platt, isotonic",
        ),
    ],
)
def test_impossible_calibrations_are_refused(call: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()  # type: ignore[operator]


def test_infinite_logits_cannot_be_fitted() -> None:
    with pytest.raises(DataError, match="finite to be calibrated; got 1 infinite of 2"):
        fit_calibration([0.0, np.inf], [0, 1])


@pytest.mark.parametrize("residual", ["platt", "isotonic"])
def test_rows_without_weight_change_nothing(residual: str) -> None:
    truth, label = simulated(20_000, seed=9)
    rng = np.random.default_rng(1)
    padded = [np.append(truth, rng.normal(size=5000)), np.append(label, rng.random(5000) < 0.9)]
    weight = np.append(np.ones(20_000), np.zeros(5000))
    plain, _ = fit_calibration(truth, label, residual=residual)
    same, report = fit_calibration(*padded, weight, residual=residual)
    assert report.kind == residual
    np.testing.assert_array_equal(plain.logits(truth), same.logits(truth))


def test_a_fit_of_clicks_alone_is_refused() -> None:
    z = np.linspace(-1.0, 1.0, 200)
    with pytest.raises(CannotFitError, match="all labels are of one kind"):
        fit_isotonic(z, np.ones(200), np.ones(200))


def test_a_correction_alone_gives_float32_log_odds_of_the_same_shape() -> None:
    corrected = LossCorrection(pos_weight=2.0).logits(np.array([[0.0, 1.0]], np.float32))
    assert corrected.dtype == tf.float32
    np.testing.assert_allclose(corrected, [[-math.log(2), 1 - math.log(2)]], rtol=1e-7)


def test_a_row_without_weight_does_not_undo_the_separation_of_the_classes() -> None:
    raw, label = np.linspace(-1.0, 1.0, 400), np.arange(400) >= 200
    assert "separate the classes" in reason_of(raw, label)
    padded = np.append(raw, 2.0), np.append(label, False), np.append(np.ones(400), 0.0)
    assert "separate the classes" in reason_of(*padded[:2], weight=padded[2])
