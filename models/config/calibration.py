"""How the residual calibrator is fitted. Imports no TensorFlow."""

from __future__ import annotations

from typing import ClassVar, Literal

from pipeline.strict_config import Changes, StrictConfig

__all__ = ["CalibrationConfig"]


class CalibrationConfig(StrictConfig):
    """The residual calibrator, fitted on the validation split after the exact loss correction."""

    label: ClassVar[str] = "calibration"
    changes: ClassVar[Changes] = Changes.CALIBRATION
    shorthand: ClassVar[str | None] = "kind"
    kind: Literal["platt", "isotonic", "none"] = "platt"
