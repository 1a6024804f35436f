"""One verdict for all gates; evidence that is missing, contradicts itself or is of other bytes is a no."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from models.run_directory import RunDirectory
from pipeline.errors import ConfigError, GateError
from serving.gates import Outcome, Reason, Verdict, batch_gap_gate, parity_gate
from serving.parity.outcome import Check, ParityReport
from serving.run_steps import kept_parity
from tests.conftest import PARITY_BARS

NAMES = ("mode", "batch, served", "batch, trained", "transform", "export", "server", "replica")


def report_with(**changes: Any) -> ParityReport:
    checks = tuple(Check(name, "says", 0.0, PARITY_BARS[name]) for name in NAMES)
    return dataclasses.replace(
        ParityReport("model", "dcn", "layer", "d" * 64, False, checks), **changes
    )


def of_batch_norm(gap: float) -> ParityReport:
    checks = [Check(n, "", 0.0, PARITY_BARS[n]) for n in NAMES if n != "batch, trained"]
    checks.append(Check("batch, trained", "", gap, None))
    return report_with(has_batch_statistics=True, norm="batch", checks=tuple(checks))


# ------------------------------------------------------------------------------- verdicts


def test_a_pass_raises_nothing() -> None:
    verdict = Verdict.of("quality", [])
    assert verdict.passed
    assert verdict.outcome is Outcome.PASS
    verdict.raise_if_refused()


def test_a_refusal_says_every_reason() -> None:
    verdict = Verdict.of(
        "quality", [Reason("a must hold", "1", "Do x."), Reason("b must hold", "2")]
    )
    with pytest.raises(GateError) as refused:
        verdict.raise_if_refused()
    assert str(refused.value) == "a must hold; got 1. Do x. Also: b must hold; got 2."
    assert refused.value.exit_code == 3
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@pytest.mark.parametrize("outcome", [Outcome.REFUSE, Outcome.TOO_FEW_ROWS])
def test_only_a_pass_is_a_pass(outcome: Outcome) -> None:
    with pytest.raises(GateError, match="quality gate must pass"):
        Verdict("quality", outcome).raise_if_refused()


# ------------------------------------------------------------------------------- the batch gap


@pytest.mark.parametrize(
    "accepted, passes", [(None, False), (0.29, False), (0.3, True), (1.0, True)]
)
def test_a_batch_gap(accepted: float | None, passes: bool) -> None:
    verdict = batch_gap_gate(of_batch_norm(0.3), accepted, "clickparity export --run R")
    assert verdict.passed is passes
    if not passes:
        (reason,) = verdict.reasons
        assert "clickparity export --run R --set export.accept_batch_gap=0.33 " in reason.remedy


def test_a_batch_gap_that_is_no_number_is_never_accepted() -> None:
    assert not batch_gap_gate(of_batch_norm(float("nan")), 1e9, "").passed
    assert not batch_gap_gate(of_batch_norm(float("inf")), 1e9, "").passed


@pytest.mark.parametrize("gap", [9.4e-7, 0.00952, 0.0955, 0.9545, 1.0, 3.14, 99.4])
def test_the_gap_that_the_message_names_is_enough(gap: float) -> None:
    (reason,) = batch_gap_gate(of_batch_norm(gap), None, "export").reasons
    accepted = float(reason.remedy.split("accept_batch_gap=")[1].split()[0])
    assert batch_gap_gate(of_batch_norm(gap), accepted, "export").passed


# ------------------------------------------------------------------------------- evidence


def test_a_parity_report_comes_back() -> None:
    for report in (report_with(), of_batch_norm(float("inf"))):
        assert ParityReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_check_that_fails_is_named(layer_run: RunDirectory) -> None:
    checks = list(report_with().checks)
    checks[3] = dataclasses.replace(checks[3], value=2.0)
    report = report_with(run=layer_run.fingerprint, checks=tuple(checks))
    (reason,) = parity_gate(report, layer_run, "d" * 64).reasons
    assert reason.value == "transform: 2 > 0"
    assert parity_gate(report_with(run=layer_run.fingerprint), layer_run, "d" * 64).passed


@pytest.mark.parametrize(
    "name, bar, with_batch_statistics, is_other",
    [
        ("export", 1e-3, False, True),
        ("export", None, True, True),
        ("batch, served", None, True, True),
        ("mode", None, False, True),
        ("mode", 1e-5, False, True),
        ("mode", None, True, False),
        ("batch, trained", None, True, False),
        ("replica", None, True, False),
        ("replica", None, False, True),
    ],
)
def test_bars_are_those_of_every_run(
    name: str, bar: float | None, with_batch_statistics: bool, is_other: bool
) -> None:
    checks = [
        dataclasses.replace(c, bar=bar) if c.name == name else c for c in report_with().checks
    ]
    report = report_with(checks=tuple(checks), has_batch_statistics=with_batch_statistics)
    assert [c.name for c in report.other_bars] == [name] * is_other


def test_parity_of_another_model_or_other_bytes_is_none(layer_run: RunDirectory) -> None:
    report = report_with(run=layer_run.fingerprint)
    assert not parity_gate(report, layer_run, "e" * 64).passed
    assert not parity_gate(report_with(run="another"), layer_run, "d" * 64).passed


def without(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != name}


@pytest.mark.parametrize(
    "damage, phrase",
    [
        (lambda d: {**d, "checks": []}, "without mode, batch, served"),
        (lambda d: {**d, "checks": d["checks"][1:]}, "without mode"),
        (lambda d: {**d, "passed": False}, "passed False"),
        (lambda d: without(d, "passed"), "passed None"),
        (lambda d: {**d, "checks": [{**d["checks"][0], "value": 1.0}, *d["checks"][1:]]}, "mode"),
        (lambda d: {**d, "checks": [{**d["checks"][0], "bar": None}, *d["checks"][1:]]}, "mode"),
        (lambda d: {**d, "checks": [without(d["checks"][0], "passed"), *d["checks"][1:]]}, "mode"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(damage: Any, phrase: str) -> None:
    with pytest.raises(GateError, match=phrase):
        ParityReport.from_json(damage(report_with().to_json()))


@pytest.mark.parametrize("name", ["run", "export_digest", "has_batch_statistics", "checks"])
def test_a_report_that_lacks_something_is_refused(
    name: str, layer_run: RunDirectory, copy_of: Any
) -> None:
    run = copy_of(layer_run)
    run.write_json("parity.json", without(run.read_json("parity.json"), name))
    with pytest.raises(ConfigError, match=rf"parity\.json.*{name}.*clickparity parity --run"):
        run.read_report("parity.json", ParityReport)
    assert kept_parity(run) is None, "it is made anew"
