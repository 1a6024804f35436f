"""The gates before a version is published. Each holds a report against bars and returns one `Verdict`.

A gate keeps nothing: it is asked anew each time, so that a changed bar asks it again and repeats no
work. Needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from models.evaluation import Evaluation, Metrics
from models.run_directory import RunDirectory
from pipeline.errors import ConfigError, GateError
from pipeline.reports import Report
from pipeline.statistics.drift import DriftReport
from pipeline.strict_config import Changes, StrictConfig
from serving.export.manifest import Manifest
from serving.parity.outcome import CHECKS_VERSION, Check, ParityReport

__all__ = [
    "ExportConfig",
    "GateConfig",
    "Outcome",
    "Reason",
    "Verdict",
    "batch_gap_gate",
    "drift_base_gate",
    "drift_gate",
    "held_out_gate",
    "parity_gate",
    "quality_gate",
    "source_gate",
    "training_gate",
]

# The sample is a part of the test split, drawn at random: three times the 95 % interval of its AUC, and
# some, lets through what chance does.
_AUC_WIDENED, _AUC_SLACK = 3.0, 0.02


class GateConfig(StrictConfig):
    """Quality bars on the test split; a run below one is not exported (exit 3).

    Attributes:
        min_auc: of the test split.
        max_calibration_error: |mean prediction / mean label - 1|.
        require_better_than_constant: refuse a model that is not surely better than one constant
            prediction: the 95 % interval of its AUC must be above 0.5, its log loss below the
            constant's, and it must have been trained on clicks and on others.
        max_odds_factor: how many times the odds of the exported model's mean prediction on held-out
            rows may be outside the 99.9 % interval of the label's odds there.
        calibration_band: lowest and highest mean prediction / mean label; refused where its whole 95 %
            interval lies outside. None: no band.
    """

    label: ClassVar[str] = "gate"
    changes: ClassVar[Changes] = Changes.GATE
    min_auc: float | None = Field(None, ge=0, le=1)
    max_calibration_error: float | None = Field(None, gt=0)
    require_better_than_constant: bool = True
    max_odds_factor: float = Field(2.0, gt=1)
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


def _better_than_constant(test: Metrics) -> tuple[Outcome, list[Reason]]:
    """Whether the rows show that a model ranks, and predicts, better than a constant."""
    remedy = (
        "Look at the data and the training history; or set gate.require_better_than_constant=false."
    )
    auc, low, entropy = test.auc, test.auc_low, test.normalized_entropy
    if auc is None or low is None or entropy is None:
        found = test.undefined or f"{test.clicks:g} clicks in {test.count:,} rows"
        rule = "a model is judged on a test split with clicks and with others"
        return Outcome.TOO_FEW_ROWS, [Reason(rule, found, f"Give it more rows. {remedy}")]
    rule = "the AUC on the test split must be better than a constant's, 0.5"
    if not auc > 0.5:
        return Outcome.REFUSE, [Reason(rule, f"{auc:.4g}", remedy)]
    if not entropy < 1:
        rule = "the log loss on the test split must be below that of a constant prediction"
        return Outcome.REFUSE, [Reason(rule, f"{entropy:.4g} times it", remedy)]
    if not low > 0.5:
        found = f"{auc:.4g}, which is at least {low:.4g} (95 %) on {test.count:,} rows"
        return Outcome.TOO_FEW_ROWS, [Reason(rule, found, f"Test on more rows. {remedy}")]
    return Outcome.PASS, []


def quality_gate(test: Metrics, bars: GateConfig) -> Verdict:
    """Holds the metrics of the test split against the config's bars; what is not defined holds none."""
    reasons = []
    if bars.min_auc is not None and not (test.auc is not None and test.auc >= bars.min_auc):
        reasons.append(
            Reason(
                "the AUC on the test split must reach gate.min_auc",
                f"{test.auc} < {bars.min_auc}",
                "Look at the data and the training history, or lower the bar.",
            )
        )
    ratio, bar = test.calibration_ratio, bars.max_calibration_error
    if bar is not None and not (ratio is not None and abs(ratio - 1) <= bar):
        reasons.append(
            Reason(
                "mean prediction over mean label on the test split must be near 1",
                f"{ratio} (gate.max_calibration_error {bar})",
                "Look at drift between the splits, or widen the bar.",
            )
        )
    reasons += _outside_band(test, bars.calibration_band)
    if reasons or not bars.require_better_than_constant:
        return Verdict.of("quality", reasons)
    outcome, reasons = _better_than_constant(test)
    return Verdict("quality", outcome, tuple(reasons))


def _outside_band(test: Metrics, band: tuple[float, float] | None) -> list[Reason]:
    """Why the calibration ratio is not near 1, where its whole interval says so."""
    low, high = test.calibration_ratio_low, test.calibration_ratio_high
    if band is None or low is None or high is None or (low <= band[1] and high >= band[0]):
        return []
    says = test.calibration_says if isinstance(test, Evaluation) else ""
    drifted = "The base rate has moved since the validation rows: take newer rows, or set "
    wrong = "Look at the calibration's report and the weights of the rows, or set "
    return [
        Reason(
            "the interval of mean prediction over mean label on the test split must reach "
            f"gate.calibration_band [{band[0]:g}, {band[1]:g}]",
            f"{test.calibration_ratio:.3g} [{low:.3g}, {high:.3g}]{f' ({says})' * bool(says)}",
            (drifted if says == "drift" else wrong) + "gate.calibration_band=null.",
        )
    ]


def _odds(probability: float) -> float:
    return probability / (1 - probability) if probability < 1 else math.inf


def _wilson(rate: float, count: int, z: float = 3.2905) -> tuple[float, float]:
    """The ends of the 99.9 % interval of a proportion (Wilson 1927)."""
    centre, spread = rate + z * z / (2 * count), rate * (1 - rate) / count
    half = z * math.sqrt(spread + z * z / (4 * count * count))
    return tuple((centre + s * half) / (1 + z * z / count) for s in (-1, 1))  # type: ignore[return-value]


def held_out_gate(measured: Metrics, claimed: Metrics, bars: GateConfig, run: Path) -> Verdict:
    """Whether the exported bytes predict what their held-out rows did, and what the metrics claim.

    Args:
        measured: of what the exported bytes answer on the held-out rows of the parity sample.
        claimed: of the test split in RUN_DIR/metrics.json, from which the sample was drawn.
        bars: the config's section `gate`.
        run: its directory, for the remedy.
    """
    rate, mean = measured.mean_label, measured.mean_probability
    if not measured.count or rate is None or mean is None or claimed.mean_probability is None:
        reason = Reason("an export is measured on held-out rows", f"{measured.count} rows")
        return Verdict("held-out", Outcome.TOO_FEW_ROWS, (reason,))
    reasons = []
    low, high = _wilson(rate, measured.count)
    factor = bars.max_odds_factor
    if not _odds(low) / factor <= _odds(mean) <= _odds(high) * factor:
        reasons.append(
            Reason(
                "the exported model's mean prediction must be near the label rate of held-out rows",
                f"{mean:.4g} on {measured.count:,} rows with a label rate of {rate:.4g} "
                f"({low:.4g} to {high:.4g} at 99.9 %; gate.max_odds_factor {factor:g})",
                f"Delete {run / 'calibration.json'}, then train again: it is fitted anew. "
                "If the labels did change, raise gate.max_odds_factor.",
            )
        )
    if not 1 / factor <= _odds(claimed.mean_probability) / (_odds(mean) or math.inf) <= factor:
        rule = "metrics.json must say what the exported bytes predict"
        found = f"a mean prediction of {claimed.mean_probability:.4g}, measured {mean:.4g}"
        reasons.append(Reason(rule, found, f"Run: clickparity evaluate --run {run}."))
    if claimed.auc is not None and None not in (measured.auc_low, measured.auc_high):
        ends = (float(measured.auc_low or 0), float(measured.auc_high or 0))
        middle, spread = sum(ends) / 2, _AUC_WIDENED * (ends[1] - ends[0]) / 2
        if not abs(claimed.auc - middle) <= spread + _AUC_SLACK:
            rule = "metrics.json must say how well the exported bytes rank"
            found = f"an AUC of {claimed.auc:.4g}, measured {ends[0]:.4g} to {ends[1]:.4g} (95 %)"
            reasons.append(Reason(rule, found, f"Run: clickparity evaluate --run {run}."))
    return Verdict.of("held-out", reasons)


def training_gate(label_rate: float, bars: GateConfig) -> Verdict:
    """Whether a model was trained on clicks and on others.

    Args:
        label_rate: of the training rows, weighted.
        bars: the config's section `gate`.
    """
    if 0 < label_rate < 1 or not bars.require_better_than_constant:
        return Verdict.of("training", [])
    rule = "a model must have been trained on clicks and on others"
    remedy = "Look at the label column; or set gate.require_better_than_constant=false."
    return Verdict.of("training", [Reason(rule, f"a label rate of {label_rate:g}", remedy)])


def source_gate(run: RunDirectory, manifest: Manifest) -> Verdict:
    """Whether an export was built from the weights and the calibration that the run has now."""
    now = {"weights": run.weights_digest, "calibration": run.calibration_digest}
    reasons = [
        Reason(
            f"an export must be built from the run's {name} as it is now",
            f"{str(manifest.extra.get(name))[:12]} in the export, {found[:12] or 'nothing'} in the run",
            f"Run: clickparity parity --run {run.path}.",
        )
        for name, found in now.items()
        if not found or manifest.extra.get(name) != found
    ]
    return Verdict.of("source", reasons)


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
    elif report.version != CHECKS_VERSION:
        reasons.append(
            Reason(
                "a run must be proved by the checks of this version",
                f"version {report.version}, today's is {CHECKS_VERSION}",
                f"Run: clickparity parity --run {run.path}.",
            )
        )
    elif failed := report.failed:
        reasons.append(
            Reason(
                "every parity bar must hold",
                "; ".join(map(_why_failed, failed)),
                f"See {run.path / 'parity.html'}.",
            )
        )
    elif other := report.other_bars:
        reasons.append(
            Reason(
                "every run is held against the same parity bars",
                "; ".join(f"{c.name}: {c.bar}" for c in other),
                f"Run: clickparity parity --run {run.path}.",
            )
        )
    return Verdict.of("parity", reasons)


def _why_failed(check: Check) -> str:
    disagreements = check.details.get("disagreements", ())
    return "; ".join([f"{check.name}: {check.value:.3g} > {check.bar:.3g}", *disagreements[:2]])


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
