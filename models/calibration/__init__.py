"""From raw logits to log odds of a click: the loss exactly undone, then a fitted residual."""

from models.calibration.correction import LossCorrection
from models.calibration.fitting import CalibrationReport, fit_calibration
from models.calibration.residual import (
    Calibration,
    IdentityCalibrator,
    IsotonicCalibrator,
    PlattCalibrator,
    Residual,
)

__all__ = [
    "Calibration",
    "CalibrationReport",
    "IdentityCalibrator",
    "IsotonicCalibrator",
    "LossCorrection",
    "PlattCalibrator",
    "Residual",
    "fit_calibration",
]
