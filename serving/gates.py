"""The gates before a version is published. Each holds a report against bars and returns one `Verdict`.

A gate keeps nothing: it is asked anew each time, so that a changed bar asks it again and repeats no
work. Needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import ClassVar

from pydantic import Field, field_validator

from models.evaluation import Evaluation, Metrics
from models.run_directory import RunDirectory
from pipeline.errors import ConfigError, GateError
from pipeline.reports import Report
from pipeline.statistics.drift import DriftReport
from pipeline.strict_config import Changes, StrictConfig
from serving.parity.outcome import ParityReport

__all__ = [
    "ExportConfig",
    "GateConfig",
    "Outcome",
    "Reason",
    "Verdict",
    "batch_gap_gate",
    "drift_base_gate",
    "drift_gate",
    "parity_gate",
    "quality_gate",
]


class GateConfig(StrictConfig):
    """Quality bars on the test split; a run below one is not exported (exit 3).

    Attributes:
        min_auc: of the test split.
        max_calibration_error: |mean prediction / mean label - 1|.
        calibration_band: lowest and highest mean prediction / mean label; refused where its whole 95 %
            interval lies outside. None: no band.
    """

    label: ClassVar[str] = "gate"
    changes: ClassVar[Changes] = Changes.GATE
    min_auc: float | None = Field(None, ge=0, le=1)
    max_calibration_error: float | None = Field(None, gt=0)
    calibration_band: tuple[float, float] | None = (0.8, 1.25)

    @field_validator("calibration_band")
    @classmethod
    def _holds_one(cls, band: tuple[float, float] | None) -> tuple[float, float] | None:
        if band is not None and not 0.0 < band[0] < 1.0 < band[1]:
            raise ConfigError(
                "gate.calibration_band lies around 1", list(band), "Try [0.8, 1.25], or null."
            )
        return band


class ExportConfig(StrictConfig):
    """Where and under what condition a run is published.

    Attributes:
        name: of the served model; a directory and part of its URL.
        accept_batch_gap: the batch gap, in logits, that is accepted of a model with batch statistics.
    """

    label: ClassVar[str] = "export"
    changes: ClassVar[Changes] = Changes.PUBLICATION
    name: str = "ctr"
    accept_batch_gap: float | None = Field(None, gt=0)


class Outcome(StrEnum):
    """What a gate says."""

    PASS = "pass"
    REFUSE = "refuse"
    TOO_FEW_ROWS = "too_few_rows"


@dataclasses.dataclass(frozen=True)
class Reason(Report):
    """Why a gate said no: the rule, the value that broke it, and what to do."""

    rule: str
    value: str
    remedy: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict(Report):
    """The answer of a gate.

    Attributes:
        gate: its name.
        outcome: anything but PASS is a no.
        reasons: of a no, the most important one first.
    """

    gate: str
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, gate: str, reasons: list[Reason]) -> Verdict:
        """A refusal for these reasons; a pass without any."""
        return cls(gate, Outcome.REFUSE if reasons else Outcome.PASS, tuple(reasons))

    @property
    def passed(self) -> bool:
        """Whether the gate lets it through."""
        return self.outcome is Outcome.PASS

    def raise_if_refused(self) -> None:
        """Raises GateError (exit 3) with the reasons, unless the gate said yes."""
        if self.passed:
            return
        first, *others = self.reasons or (Reason(f"the {self.gate} gate must pass", self.outcome),)
        more = "".join(f" Also: {other.rule}; got {other.value}." for other in others)
        raise GateError(first.rule, first.value, first.remedy + more)


def quality_gate(test: Metrics, bars: GateConfig) -> Verdict:
    """Holds the metrics of the test split against the config's bars; what is not defined holds none."""
    reasons = []
    if bars.min_auc is not None and (test.auc is None or test.auc < bars.min_auc):
        reasons.append(
            Reason(
                "the AUC on the test split must reach gate.min_auc",
                f"{test.auc} < {bars.min_auc}",
                "Look at the data and the training history, or lower the bar.",
            )
        )
    ratio, bar = test.calibration_ratio, bars.max_calibration_error
    if bar is not None and (ratio is None or abs(ratio - 1) > bar):
        reasons.append(
            Reason(
                "mean prediction over mean label on the test split must be near 1",
                f"{ratio} (gate.max_calibration_error {bar})",
                "Look at drift between the splits, or widen the bar.",
            )
        )
    band = bars.calibration_band
    low, high = test.calibration_ratio_low, test.calibration_ratio_high
    if band and low is not None and high is not None and (low > band[1] or high < band[0]):
        says = test.calibration_says if isinstance(test, Evaluation) else ""
        is_drift = says == "drift"
        reasons.append(
            Reason(
                "the interval of mean prediction over mean label on the test split must reach "
                f"gate.calibration_band [{band[0]:g}, {band[1]:g}]",
                f"{ratio:.3g} [{low:.3g}, {high:.3g}]{f' ({says})' * bool(says)}",
                "The base rate has moved since the validation rows: take newer rows, or set "
                "gate.calibration_band=null."
                if is_drift
                else "Look at the calibration's report and the weights of the rows, or set "
                "gate.calibration_band=null.",
            )
        )
    return Verdict.of("quality", reasons)


def parity_gate(report: ParityReport, run: RunDirectory, export_digest: str) -> Verdict:
    """Whether every parity bar holds, for the run as it is now and the very bytes that would be published.

    Args:
        report: of the run.
        run: its directory.
        export_digest: `serving.parity.outcome.export_digest` of those bytes.
    """
    reasons = []
    proved = f"{report.export_digest[:12]} of model {report.run}"
    found = f"{export_digest[:12]} of model {run.fingerprint}"
    if proved != found:
        reasons.append(
            Reason(
                "the export must be the one that parity was proved for",
                f"{found}, checked was {proved}",
                f"Run: clickparity parity --run {run.path}.",
            )
        )
    elif failed := report.failed:
        reasons.append(
            Reason(
                "every parity bar must hold",
                "; ".join(f"{c.name}: {c.value:.3g} > {c.bar:.3g}" for c in failed),
                f"See {run.path / 'parity.html'}.",
            )
        )
    return Verdict.of("parity", reasons)


def batch_gap_gate(report: ParityReport, accepted: float | None, command: str) -> Verdict:
    """Whether the config accepts the measured batch gap of a model with batch statistics.

    Args:
        report: of the run.
        accepted: export.accept_batch_gap, in logits; None accepts none.
        command: what publishes the run, for the remedy: the accepted gap is appended to it.
    """
    gap = report.batch_gap
    if gap is None or (accepted is not None and gap <= accepted):
        return Verdict.of("batch gap", [])
    says = "accepts none" if accepted is None else f"accepts {accepted:g}"
    setting = f"export.accept_batch_gap={gap * 1.1:.2g}"
    reason = Reason(
        "a model with batch statistics is exported only when the config accepts its batch gap",
        f"a gap of {gap:.3g} in logits (batch of 64 against served), the config {says}",
        "Train with model.norm=layer; or, if that is what you want, publish this run with: "
        f"{command} --set {setting} (and set {setting} in the config for the runs to come).",
    )
    return Verdict.of("batch gap", [reason])


def drift_base_gate(missing: str, allowed: bool) -> Verdict:
    """Whether a version may be published whose data cannot be compared with the live one's.

    Args:
        missing: what is not there to compare with.
        allowed: drift.allow_missing_base.
    """
    reason = Reason(
        "today's data must be compared with what the live version was trained on",
        missing,
        "Restore it, or set drift.allow_missing_base=true to publish without a comparison.",
    )
    return Verdict.of("drift", [] if allowed else [reason])


def drift_gate(report: DriftReport, shown: int = 5) -> Verdict:
    """Whether today's data is within the config's limits of the last accepted run's.

    Args:
        report: the comparison, with what is over a limit.
        shown: how many findings the reason names.
    """
    if not report.findings:
        return Verdict.of("drift", [])
    worst = "; ".join(str(finding) for finding in report.findings[:shown])
    more = len(report.findings) - shown
    reason = Reason(
        "today's data must not drift from the last accepted run's beyond the config's limits",
        worst + (f"; {more} more" if more > 0 else ""),
        "Look at the source of the named features first (a changed encoding, a broken join). "
        "If the change is real, accept it: raise drift.max_* or name the features in "
        "drift.ignore for this run; it is then the next comparison's base.",
    )
    return Verdict.of("drift", [reason])
