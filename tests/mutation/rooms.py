"""What is mutated, and which tests must notice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

__all__ = ["ROOMS", "Room"]


@dataclasses.dataclass(frozen=True)
class Room:
    """Sources and the tests that protect them, as glob patterns below the root.

    Attributes:
        sources: files to mutate.
        tests: test files; the nearest ones are enough, and quick ones keep a run short.
    """

    sources: tuple[str, ...]
    tests: tuple[str, ...]

    def source_files(self, root: Path) -> list[str]:
        """Relative paths of what is mutated."""
        return _found(root, self.sources)

    def test_files(self, root: Path) -> list[str]:
        """Relative paths of the tests."""
        return _found(root, self.tests)


def _found(root: Path, patterns: tuple[str, ...]) -> list[str]:
    files = {path for pattern in patterns for path in root.glob(pattern)}
    return sorted(str(p.relative_to(root)) for p in files if p.name != "__init__.py")


ROOMS = {
    "gates": Room(
        ("serving/gates.py", "serving/gates/*.py"),
        ("tests/serving/test_gates*.py", "tests/serving/gates/test_*.py"),
    ),
    "drift": Room(
        ("pipeline/statistics/drift*.py",),
        ("tests/pipeline/statistics/test_drift*.py",),
    ),
    "step_directory": Room(
        ("pipeline/step_directory.py",),
        ("tests/pipeline/test_step_directory*.py",),
    ),
    "repository": Room(
        ("serving/repository/*.py",),
        ("tests/serving/repository/test_*.py",),
    ),
    "metrics": Room(
        ("models/metrics/*.py",),
        ("tests/models/metrics/test_*.py",),
    ),
    "calibration": Room(
        ("models/calibration/*.py",),
        ("tests/models/calibration/test_*.py",),
    ),
    "optimizers": Room(
        ("models/optimizers/*.py",),
        ("tests/models/optimizers/test_*.py",),
    ),
    "transform": Room(
        ("pipeline/transform/*.py",),
        ("tests/pipeline/transform/test_*.py",),
    ),
}
