"""The drift gate: today's statistics against the last accepted run's, before anything trains.

Measured: the label rate (relative change, and z of the difference of two proportions), the missing
rate of each feature, how far its distribution moved, and the share of ids that the earlier
vocabulary does not hold. Distributions are compared in bins of the two runs' equal mixture, so that
both distances are symmetric:

    PSI = sum (p - q) ln(p / q)                     shares below 1e-4 (or 1/2n) count as that
    JS  = H((p + q) / 2) - (H(p) + H(q)) / 2         in bits, between 0 and 1 (Lin 1991)

Numbers use the histogram in statistics.json (or its quantiles, coarser, where there is none);
ids use the vocabulary's counts, with one bin for everything outside the compared values. Between
two samples of one distribution PSI is about (1/n + 1/m) chi^2 with bins - 1 degrees of freedom
(Yurdakul 2018); what chance explains is not drift. Needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Any, ClassVar

from pydantic import Field

from pipeline.errors import ConfigError
from pipeline.statistics.drift_distances import (
    binned,
    distances,
    jensen_shannon,
    population_stability_index,
    vocabulary_drift,
)
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.strict_config import Changes, StrictConfig

__all__ = [
    "DriftConfig",
    "DriftReport",
    "FeatureDrift",
    "Finding",
    "compare_statistics",
    "jensen_shannon",
    "population_stability_index",
]

_LABEL = "label"


class DriftConfig(StrictConfig):
    """Thresholds of the drift gate; null switches a check off.

    Attributes:
        max_label_rate_change: |today / before - 1| of the label rate.
        max_missing_rate_change: of a feature, absolute: 0.05 lets 2 % become 7 %.
        max_psi: population stability index of a feature. By custom 0.1 is worth a look and 0.25 a
            shift.
        max_jensen_shannon: of a feature, in bits.
        max_unseen_share: share of today's vocabulary counts whose value was not in the earlier
            vocabulary: the model knows nothing of these ids.
        min_z: changes of rates count only where they are this many standard errors.
        bins: per numeric feature.
        values: per text feature, the most frequent ones of the mixture; the others, and those that
            occur less than 10 times, share a bin.
        allow_missing_base: publish without a comparison where the data of the live version is gone.
        allow_schema_change: compare the features that both have, instead of an error.
        ignore: features that may drift.
    """

    label: ClassVar[str] = "drift"
    changes: ClassVar[Changes] = Changes.GATE

    max_label_rate_change: float | None = Field(0.25, gt=0)
    max_missing_rate_change: float | None = Field(0.05, gt=0, le=1)
    max_psi: float | None = Field(0.25, gt=0)
    max_jensen_shannon: float | None = Field(None, gt=0, le=1)
    max_unseen_share: float | None = Field(0.3, ge=0, le=1)
    min_z: float = Field(4.0, ge=0)
    bins: int = Field(20, ge=2, le=1000)
    values: int = Field(100, ge=1, le=100_000)
    allow_missing_base: bool = False
    allow_schema_change: bool = False
    ignore: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Finding:
    """One measure over its threshold.

    Attributes:
        feature: its name; `label` for the label rate.
        measure: label_rate_change, missing_rate_change, psi, jensen_shannon or unseen_share.
        value, threshold: what was measured and what is allowed.
    """

    feature: str
    measure: str
    value: float
    threshold: float

    @property
    def excess(self) -> float:
        """How many times over the threshold: by this the worst come first."""
        return abs(self.value) / self.threshold if self.threshold else math.inf

    def __str__(self) -> str:
        return f"{self.feature} {self.measure} {self.value:.4g} (allowed {self.threshold:.4g})"


@dataclasses.dataclass(frozen=True)
class FeatureDrift:
    """What was measured of one feature; None where there is nothing to measure.

    Attributes:
        feature: its name.
        kind: numeric or text.
        missing_rate, missing_rate_before: share of the rows without a value.
        psi, jensen_shannon: distance of the distributions.
        psi_by_chance: the 99.99 % quantile of PSI between two samples of one distribution.
        unseen_share: of text features, see `DriftConfig`.
    """

    feature: str
    kind: str
    missing_rate: float | None
    missing_rate_before: float | None
    psi: float | None = None
    jensen_shannon: float | None = None
    psi_by_chance: float | None = None
    unseen_share: float | None = None


@dataclasses.dataclass(frozen=True)
class DriftReport:
    """The comparison of two runs' statistics.

    Attributes:
        label_rate, label_rate_before: of the training rows; None without rows.
        label_rate_z: standard errors between them.
        features: in the schema's order, numeric ones first.
        findings: what is over its threshold, the worst first.
    """

    label_rate: float | None
    label_rate_before: float | None
    label_rate_z: float
    features: tuple[FeatureDrift, ...]
    findings: tuple[Finding, ...]

    HEADER = ("feature", "missing", "before", "PSI", "by chance", "JS (bits)", "unseen", "")

    def table_rows(self) -> list[list[Any]]:
        """A row a feature under `HEADER`, the label's first; the last cell says what is over."""
        over: dict[str, list[str]] = {}
        for finding in self.findings:
            over.setdefault(finding.feature, []).append(finding.measure)
        label = [f"{_LABEL} rate", _share(self.label_rate), _share(self.label_rate_before)]
        z = f"z {self.label_rate_z:.1f}"
        rows: list[list[Any]] = [[*label, z, "", "", "", " ".join(over.get(_LABEL, []))]]
        for f in self.features:
            rows.append(
                [
                    f.feature,
                    _share(f.missing_rate),
                    _share(f.missing_rate_before),
                    f.psi,
                    f.psi_by_chance,
                    f.jensen_shannon,
                    _share(f.unseen_share),
                    " ".join(over.get(f.feature, [])),
                ]
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return dataclasses.asdict(self)


def compare_statistics(
    today: FeatureStatistics, before: FeatureStatistics, config: DriftConfig | None = None
) -> DriftReport:
    """Measures the drift between two runs and holds it against the thresholds.

    Args:
        today: of the new data.
        before: of the last accepted run.
        config: thresholds.

    Raises:
        ConfigError: the schemas differ (unless allowed), or `ignore` names no feature.
    """
    config = config or DriftConfig()
    _check_schemas(today, before, config)
    features = [*_numeric_drifts(today, before, config), *_text_drifts(today, before, config)]
    old_rate, new_rate = before.numbers["label_rate"], today.numbers["label_rate"]
    rows, rows_before = today.numbers["training_rows"], before.numbers["training_rows"]
    z = _z(new_rate, rows, old_rate, rows_before)
    findings: list[Finding] = []

    def hold(feature: str, measure: str, value: float | None, limit: float | None) -> None:
        if value is not None and limit is not None and abs(value) > limit:
            findings.append(Finding(feature, measure, value, limit))

    if new_rate is not None and old_rate is not None and abs(z) > config.min_z:
        change = new_rate / old_rate - 1 if old_rate else math.inf
        hold(_LABEL, "label_rate_change", change, config.max_label_rate_change)
    for f in features:
        if f.feature in config.ignore:
            continue
        if f.missing_rate is None or f.missing_rate_before is None:
            continue  # only one run has it: shown in the table
        if abs(_z(f.missing_rate, rows, f.missing_rate_before, rows_before)) > config.min_z:
            change = f.missing_rate - f.missing_rate_before
            hold(f.feature, "missing_rate_change", change, config.max_missing_rate_change)
        if f.psi is not None and f.psi_by_chance is not None and f.psi > f.psi_by_chance:
            hold(f.feature, "psi", f.psi, config.max_psi)
            hold(f.feature, "jensen_shannon", f.jensen_shannon, config.max_jensen_shannon)
        hold(f.feature, "unseen_share", f.unseen_share, config.max_unseen_share)
    findings.sort(key=lambda f: (-f.excess, f.feature, f.measure))
    return DriftReport(new_rate, old_rate, z, tuple(features), tuple(findings))


def _z(rate: float | None, n: int, rate_before: float | None, m: int) -> float:
    """Standard errors between two proportions (pooled); 0 where there is nothing to compare."""
    if rate is None or rate_before is None or not n or not m:
        return 0.0
    pooled = (rate * n + rate_before * m) / (n + m)
    error = math.sqrt(max(pooled * (1 - pooled), 0.0) * (1 / n + 1 / m))
    return (rate - rate_before) / error if error else 0.0


# ------------------------------------------------------------------------------------- features


def _check_schemas(
    today: FeatureStatistics, before: FeatureStatistics, config: DriftConfig
) -> None:
    prints = [s.numbers["schema_fingerprint"] for s in (today, before)]
    if prints[0] != prints[1] and not config.allow_schema_change:
        names = [s.numbers["schema"] for s in (today, before)]
        raise ConfigError(
            "drift is measured between runs of one schema",
            f"{names[0]} ({prints[0]}) today and {names[1]} ({prints[1]}) before",
            "Compare with a run of the same schema, or set drift.allow_schema_change=true to "
            "compare the features that both have.",
        )
    known = {*today.numbers["numeric"], *today.numbers["text"]}
    known |= {*before.numbers["numeric"], *before.numbers["text"]}
    for name in config.ignore:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else ""
            raise ConfigError("drift.ignore must name features", repr(name), hint)


def _numeric_drifts(
    today: FeatureStatistics, before: FeatureStatistics, config: DriftConfig
) -> list[FeatureDrift]:
    drifts = []
    new, old = today.numbers["numeric"], before.numbers["numeric"]
    for name in dict.fromkeys([*new, *old]):
        a, b = old.get(name), new.get(name)
        measured: dict[str, float | None] = {}
        if a and b:
            histograms = binned(a, b, config.bins)
            measured = distances(*histograms, a["count"], b["count"])
        rates = [s["missing"] / max(s["missing"] + s["count"], 1) if s else None for s in (b, a)]
        drifts.append(FeatureDrift(name, "numeric", *rates, **measured))
    return drifts


def _text_drifts(
    today: FeatureStatistics, before: FeatureStatistics, config: DriftConfig
) -> list[FeatureDrift]:
    drifts = []
    new, old = today.numbers["text"], before.numbers["text"]
    for name in dict.fromkeys([*new, *old]):
        a, b = old.get(name), new.get(name)
        measured: dict[str, float | None] = {}
        if a and b:
            measured = vocabulary_drift(
                before.vocabularies[name], today.vocabularies[name], a, b, config.values
            )
        rates = [s["missing"] / max(s["missing"] + s["present"], 1) if s else None for s in (b, a)]
        drifts.append(FeatureDrift(name, "text", *rates, **measured))
    return drifts


def _share(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.2%}"
