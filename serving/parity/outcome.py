"""What the parity checks came to: RUN_DIR/parity.json. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import GateError
from pipeline.reports import Report
from serving.export.manifest import MANIFEST_PATH

__all__ = ["CHECKS_VERSION", "Check", "ParityReport", "export_digest"]

CHECKS_VERSION = 2
"""Of what the checks ask; 1, which reports did not state, asked neither classify nor regress."""

_BARS = {
    "mode": 0.0,
    "batch, served": 1e-5,
    "batch, trained": 1e-5,
    "transform": 0.0,
    "export": 1e-5,
    "server": 1e-5,
    "replica": 1e-5,
}
_REPORTED_WITH_BATCH_STATISTICS = ("mode", "batch, trained", "replica")


def export_digest(export_dir: Path) -> str:
    """One hash for the whole export: of its manifest, which holds the hashes of every file."""
    return hashlib.sha256((export_dir / MANIFEST_PATH).read_bytes()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Check(Report):
    """The outcome of one check.

    Attributes:
        name: as DESIGN tables it.
        says: what was compared, in a line.
        value: the largest absolute difference (of logits; of tensor elements that differ, for transform).
        bar: what `value` may be at most; None: reported only.
        details: further figures, by name.
    """

    name: str
    says: str
    value: float
    bar: float | None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def passed(self) -> bool | None:
        """Whether the bar holds; None without a bar. NaN passes no bar."""
        return None if self.bar is None else bool(self.value <= self.bar)

    def to_json(self) -> dict[str, Any]:
        """Plain values for parity.json; what is not finite is written as text."""
        return {**_json_values(dataclasses.asdict(self)), "passed": self.passed}

    @classmethod
    def from_json(cls, document: Any) -> Check:
        """The check that `to_json` gave.

        Raises:
            ValueError: it is none.
            GateError: it says that it passed, or failed, and its numbers say otherwise.
        """
        fields = dict(document)
        passed = fields.pop("passed", "nothing")
        if isinstance(fields.get("value"), str):
            fields["value"] = float(fields["value"])
        value = fields.get("value")
        is_finite = not isinstance(value, float) or math.isfinite(value)
        check = super().from_json(fields if is_finite else {**fields, "value": 0.0})
        check = check if is_finite else dataclasses.replace(check, value=fields["value"])
        if passed is not check.passed:
            raise GateError(
                "a parity check must say what its numbers say",
                f"{check.name}: passed {passed}, with value {check.value:.3g} and bar {check.bar}",
                "Run: clickparity parity.",
            )
        return check


def _json_values(value: Any) -> Any:
    """The same with every number that strict JSON cannot say as text ("inf")."""
    if isinstance(value, dict):
        return {key: _json_values(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@dataclasses.dataclass(frozen=True)
class ParityReport(Report):
    """What a run's export was asked, and its answers.

    Attributes:
        run: `RunDirectory.fingerprint` of what was exported.
        model, norm: their names.
        export_digest: `export_digest` of the bytes that were checked.
        has_batch_statistics: whether the model has any.
        checks: in the order in which they were made.
        version: of the checks: a report of another one does not count as made.
    """

    run: str
    model: str
    norm: str
    export_digest: str
    has_batch_statistics: bool
    checks: tuple[Check, ...]
    version: int = CHECKS_VERSION

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks whose bar does not hold."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def passed(self) -> bool:
        """Whether no bar fails."""
        return not self.failed

    @property
    def other_bars(self) -> tuple[Check, ...]:
        """The checks of every run that were held against another bar than every run's."""
        reported = _REPORTED_WITH_BATCH_STATISTICS if self.has_batch_statistics else ()
        return tuple(
            check
            for check in self.checks
            if check.name in _BARS
            and check.bar != _BARS[check.name]
            and not (check.bar is None and check.name in reported)
        )

    @property
    def batch_gap(self) -> float | None:
        """What batch statistics do to a logit, see the check `batch, trained`; None without them."""
        found = self.check("batch, trained") if self.has_batch_statistics else None
        return None if found is None else found.value

    def check(self, name: str) -> Check | None:
        """A check by its name; None when it was not made."""
        return next((check for check in self.checks if check.name == name), None)

    def details(self, name: str) -> dict[str, Any]:
        """The further figures of a check.

        Raises:
            KeyError: it was not made.
        """
        found = self.check(name)
        if found is None:
            raise KeyError(name)
        return found.details

    def to_json(self) -> dict[str, Any]:
        """Plain values for parity.json."""
        checks = [check.to_json() for check in self.checks]
        document = {**super().to_json(), "checks": checks, "passed": self.passed}
        return {**document, "version": self.version}

    @classmethod
    def from_json(cls, document: Any) -> ParityReport:
        """The report that `to_json` gave.

        Raises:
            ValueError: it is none: a field is missing or has another type.
            GateError: a check is missing that every run is asked, or what it says contradicts its numbers.
        """
        if not isinstance(document, Mapping) or not isinstance(document.get("checks"), list):
            raise ValueError("checks: a list of checks is expected")
        fields = {"version": 1, **document, "checks": []}
        passed = fields.pop("passed", None)
        checks = tuple(map(Check.from_json, document["checks"]))
        report = dataclasses.replace(super().from_json(fields), checks=checks)
        missing = [name for name in _BARS if report.check(name) is None]
        if missing or passed is not report.passed:
            raise GateError(
                "a parity report must hold every check, and say what they say",
                f"without {', '.join(missing)}" if missing else f"passed {passed}",
                "Run: clickparity parity.",
            )
        return report
