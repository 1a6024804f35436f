"""The fits of the residual calibrators, Platt's and the isotonic one, on weighted rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.optimize import minimize
from scipy.special import expit, logit

from models.calibration.residual import IsotonicCalibrator, PlattCalibrator
from models.metrics.checked_arrays import Array

__all__ = ["CannotFitError", "fit_isotonic", "fit_platt", "fit_platt_with_prior"]

MAX_STEPS = 100
MAX_KNOTS = 50
CLICKS_PER_KNOT = 50  # a knot's log odds are then known to about 0.14
PRIOR_LOG_SLOPE, PRIOR_SHIFT = 0.25, 1.0  # standard deviations of the prior at the identity


class CannotFitError(Exception):
    """The rows do not determine a calibrator; the message is the report's reason."""


def fit_platt(z: Array, labels: Array, weights: Array) -> PlattCalibrator:
    """The slope and intercept of least weighted log loss, by Newton's method.

    Args:
        z: log odds, [rows], finite.
        labels: 0 or 1, [rows], both present with weight.
        weights: [rows].

    Raises:
        CannotFitError: the slope would not be positive, or there is no minimum.
    """
    used = weights > 0
    z, labels, weights = z[used], labels[used], weights[used] / weights[used].sum()
    centre = float(np.dot(weights, z))
    spread = math.sqrt(float(np.dot(weights, (z - centre) ** 2)))
    if spread <= 1e-9 * max(1.0, abs(centre)):
        # One logit for all rows: only the intercept is determined.
        return PlattCalibrator(1.0, float(logit(np.dot(weights, labels))) - centre)
    if z[labels == 1].min() >= z[labels == 0].max():
        raise CannotFitError("the logits separate the classes, so that any slope can be bettered")
    x = (z - centre) / spread
    theta = np.array([spread, centre])  # starts at the identity

    def loss(theta: Array) -> float:
        t = theta[0] * x + theta[1]
        return float(np.dot(weights, np.logaddexp(0.0, t) - labels * t))

    current = loss(theta)
    for _ in range(MAX_STEPS):
        p = expit(theta[0] * x + theta[1])
        error, curvature = weights * (p - labels), weights * p * (1.0 - p)
        gradient = np.array([np.dot(error, x), error.sum()])
        cross = float(np.dot(curvature, x))
        hessian = np.array([[np.dot(curvature, x * x), cross], [cross, curvature.sum()]])
        # The ridge matters only where all rows are saturated and the curvature is zero.
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        decrement = float(gradient @ step)
        if decrement < 1e-14:
            theta = theta - step
            break
        scale = 1.0
        while scale > 1e-8 and loss(theta - scale * step) > current - 1e-4 * scale * decrement:
            scale /= 2
        theta = theta - scale * step
        current = loss(theta)
    else:
        raise CannotFitError(f"no minimum was found in {MAX_STEPS} steps")
    slope = float(theta[0]) / spread
    if slope <= 0.0:
        raise CannotFitError(f"the slope would be {slope:.3g}: clicks have the lower logits")
    return PlattCalibrator(slope, float(theta[1]) - slope * centre)


def fit_platt_with_prior(z: Array, labels: Array, weights: Array) -> PlattCalibrator:
    """The most probable slope and shift under a Gaussian prior at the identity: for few clicks.

    With c the mean log odds, t = e^u (z - c) + c + b minimises

        sum of log losses + u^2 / (2 * 0.25^2) + b^2 / (2 * 1^2),

    in which a row of mean weight counts once. Near the identity the rows know b to 1 / sqrt(clicks) where
    clicks are rare: the prior of b is worth one click, that of u (the slope within a factor 1.28 at one
    deviation) 16 clicks whose logits have a spread of 1.

    Args:
        z: log odds, [rows], finite.
        labels: 0 or 1, [rows], both present with weight.
        weights: [rows].

    Raises:
        CannotFitError: the numbers are too large for a minimum to be found.
    """
    used = weights > 0
    z, labels, weights = z[used], labels[used], weights[used] / weights[used].mean()
    centre = float(np.average(z, weights=weights))
    x = z - centre

    def loss(theta: Array) -> tuple[float, Array]:
        u, b = theta
        scaled = math.exp(u) * x
        t = scaled + centre + b
        error = weights * (expit(t) - labels)
        value = float(np.dot(weights, np.logaddexp(0.0, t) - labels * t))
        value += u * u / (2 * PRIOR_LOG_SLOPE**2) + b * b / (2 * PRIOR_SHIFT**2)
        slope = float(np.dot(error, scaled)) + u / PRIOR_LOG_SLOPE**2
        return value, np.array([slope, float(error.sum()) + b / PRIOR_SHIFT**2])

    # Within these bounds nothing overflows; the prior keeps every sensible fit far inside.
    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-5, 5), (-50, 50)])
    if not np.isfinite(found.x).all() or not np.isfinite(found.fun):
        raise CannotFitError("the logits are too large")
    slope = math.exp(float(found.x[0]))
    return PlattCalibrator(slope, centre + float(found.x[1]) - slope * centre)


class _Bin(NamedTuple):
    """Sums over the rows of a bin."""

    weight: float
    clicks: float
    predicted: float

    def rate(self, unit: float) -> float:
        """The click rate with one more row of weight `unit`, half a click."""
        return (self.clicks + 0.5 * unit) / (self.weight + unit)

    def joined(self, other: _Bin) -> _Bin:
        """The bin of both bins' rows."""
        return _Bin(*(mine + its for mine, its in zip(self, other, strict=True)))


def fit_isotonic(z: Array, labels: Array, weights: Array) -> IsotonicCalibrator:
    """Knots at bins of equal click weight, pooled until their click rates rise, then shifted.

    A knot lies at the log odds of its bin's mean prediction, so a calibrated model is left as it
    is; the final shift makes the mean prediction on the rows equal to their mean label.

    Args:
        z: log odds, [rows], finite.
        labels: 0 or 1, [rows], both present with weight.
        weights: [rows].

    Raises:
        CannotFitError: all predictions are 0 or 1.
    """
    used = weights > 0
    z, labels, weights = z[used], labels[used], weights[used]
    order = np.argsort(z, kind="stable")
    z, labels, weights = z[order], labels[order], weights[order]
    num_bins = int(np.clip(labels.sum() // CLICKS_PER_KNOT, 1, MAX_KNOTS))
    clicks = weights * labels
    share = (np.cumsum(clicks) - 0.5 * clicks) / clicks.sum()
    bin_of = np.minimum((share * num_bins).astype(np.int64), num_bins - 1)
    # Tied logits share the bin of the first of them.
    bin_of = bin_of[np.searchsorted(z, z, side="left")]
    sums = (np.bincount(bin_of, weights=v) for v in (weights, clicks, weights * expit(z)))
    bins = [_Bin(*map(float, numbers)) for numbers in zip(*sums, strict=True) if numbers[0] > 0]
    # Half a click and half a non-click, of mean weight: a bin of clicks only has finite log odds.
    unit = float(weights.mean())
    pooled: list[_Bin] = []
    for one in bins:
        pooled.append(one)
        while len(pooled) > 1 and pooled[-2].rate(unit) >= pooled[-1].rate(unit):
            last = pooled.pop()
            pooled[-1] = pooled[-1].joined(last)
    inputs = np.array([logit(one.predicted / one.weight) for one in pooled])
    outputs = np.array([logit(one.rate(unit)) for one in pooled])
    if not np.isfinite(inputs).all() or (np.diff(inputs) <= 0).any():
        raise CannotFitError("the predictions are saturated at 0 or 1")
    curve = IsotonicCalibrator(inputs, outputs).correct(tf.constant(z, tf.float64)).numpy()
    return IsotonicCalibrator(inputs, outputs + _shift_to_mean(curve, labels, weights))


def _shift_to_mean(z: Array, labels: Array, weights: Array) -> float:
    """The number that, added to all log odds, makes the mean prediction the mean label."""
    goal, total = float(np.dot(weights, labels)), float(weights.sum())
    low, high = -50.0, 50.0
    if not 0.0 < goal < total:
        raise CannotFitError("all labels are of one kind")
    while high - low > 1e-12:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (
            (middle, high) if float(np.dot(weights, expit(z + middle))) < goal else (low, middle)
        )
    return (low + high) / 2
