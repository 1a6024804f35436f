"""Each gate at its bar, a hair beside it, and without a figure to hold against it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from models.evaluation import Metrics
from pipeline.errors import GateError
from pipeline.statistics.drift import DriftReport, Finding
from serving.gates import (
    ExportConfig,
    GateConfig,
    Verdict,
    drift_base_gate,
    drift_gate,
    parity_gate,
    quality_gate,
)
from serving.parity.outcome import Check, ParityReport

NONE: dict[str, Any] = {
    field.name: None
    for field in dataclasses.fields(Metrics)
    if field.default is dataclasses.MISSING
}


def metrics(**figures: float | None) -> Metrics:
    return Metrics(**{**NONE, "count": 1000, "clicks": 30.0, **figures})


def only(**bars: float) -> GateConfig:
    """These bars alone: that a model is better than a constant has tests of its own."""
    return GateConfig(require_better_than_constant=False, **bars)


def rules(verdict: Verdict) -> list[str]:
    return [reason.rule for reason in verdict.reasons]


def test_without_bars_anything_passes() -> None:
    assert quality_gate(metrics(), only()).passed


@pytest.mark.parametrize("auc,passes", [(0.7, True), (0.71, True), (0.6999, False), (None, False)])
def test_the_auc_bar(auc: float | None, passes: bool) -> None:
    verdict = quality_gate(metrics(auc=auc), only(min_auc=0.7))
    assert verdict.passed is passes
    assert passes or rules(verdict) == ["the AUC on the test split must reach gate.min_auc"]
    assert passes or verdict.reasons[0].value == f"{auc} < 0.7"


@pytest.mark.parametrize(
    "ratio,passes",
    [(1.0, True), (1.25, True), (0.75, True), (1.2501, False), (0.7499, False), (None, False)],
)
def test_the_calibration_bar(ratio: float | None, passes: bool) -> None:
    verdict = quality_gate(metrics(calibration_ratio=ratio), only(max_calibration_error=0.25))
    assert verdict.passed is passes
    assert passes or rules(verdict) == [
        "mean prediction over mean label on the test split must be near 1"
    ]


def test_both_bars_are_asked() -> None:
    bars = only(min_auc=0.7, max_calibration_error=0.1)
    assert len(quality_gate(metrics(auc=0.6, calibration_ratio=2.0), bars).reasons) == 2
    assert quality_gate(metrics(auc=0.8, calibration_ratio=1.05), bars).passed


@pytest.mark.parametrize(
    "options",
    [{"min_auc": -0.1}, {"min_auc": 1.1}, {"max_calibration_error": 0.0}],
)
def test_bars_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        GateConfig(**options)


def test_bars_at_the_ends_of_their_range() -> None:
    assert (GateConfig(min_auc=0.0).min_auc, GateConfig(min_auc=1.0).min_auc) == (0.0, 1.0)
    assert ExportConfig(accept_batch_gap=1e-3).accept_batch_gap == 1e-3
    with pytest.raises(ValidationError, match="accept_batch_gap"):
        ExportConfig(accept_batch_gap=0.0)


def drift(count: int) -> DriftReport:
    found = tuple(Finding(f"f{i}", "psi", 1.0 + i, 0.25) for i in range(count))
    return DriftReport(0.02, 0.02, 0.0, (), found)


def test_drift_names_the_worst_and_counts_the_others() -> None:
    assert drift_gate(drift(0)).passed
    for count, more in ((1, None), (5, None), (6, "1 more"), (8, "3 more")):
        verdict = drift_gate(drift(count))
        assert not verdict.passed
        value = verdict.reasons[0].value
        assert value.count("psi") == min(count, 5)
        assert value.startswith("f0 psi 1 (allowed 0.25)")
        assert ("more" in value) == (more is not None)
        assert more is None or value.endswith(more)


def test_a_missing_base_is_a_no_unless_the_config_allows_it() -> None:
    assert drift_base_gate("no statistics", allowed=True).passed
    verdict = drift_base_gate("no statistics", allowed=False)
    assert verdict.reasons[0].value == "no statistics"
    with pytest.raises(GateError, match=r"drift\.allow_missing_base=true"):
        verdict.raise_if_refused()


BARS = {
    "mode": 0.0,
    "batch, served": 1e-5,
    "batch, trained": 1e-5,
    "transform": 0.0,
    "export": 1e-5,
    "server": 1e-5,
    "replica": 1e-5,
}


@pytest.mark.parametrize(
    "proved,asked,value,rule",
    [
        (("model", "d" * 64), ("model", "d" * 64), 0.0, None),
        (("model", "d" * 64), ("model", "e" * 64), 0.0, "the export must be the one"),
        (("model", "d" * 64), ("other", "d" * 64), 0.0, "the export must be the one"),
        (("model", "d" * 64), ("model", "d" * 64), 2e-5, "every parity bar must hold"),
    ],
)
def test_parity_of_these_bytes_and_this_model(
    proved: tuple[str, str], asked: tuple[str, str], value: float, rule: str | None
) -> None:
    checks = tuple(Check(name, "says", value, bar) for name, bar in BARS.items())
    report = ParityReport(proved[0], "dcn", "layer", proved[1], False, checks)
    run: Any = SimpleNamespace(fingerprint=asked[0], path=Path("run"))
    verdict = parity_gate(report, run, asked[1])
    assert verdict.passed is (rule is None)
    assert rule is None or verdict.reasons[0].rule.startswith(rule)
    if value:
        assert verdict.reasons[0].value.startswith("mode: 2e-05 > 0; batch, served: 2e-05")
