"""A trained run in memory: what several steps need of it, each thing opened or built once."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.run_directory import RunDirectory
from pipeline.errors import ConfigError
from pipeline.records.data_directory import DataDirectory
from pipeline.reports import Report

if TYPE_CHECKING:
    from models.calibration import Calibration
    from models.zoo.base import CTRModel
    from pipeline.transform.feature_transform import FeatureTransform

__all__ = ["StoredCalibration", "TrainedRun"]


@dataclasses.dataclass(frozen=True)
class StoredCalibration(Report):
    """RUN_DIR/calibration.json.

    Attributes:
        calibration: as `Calibration.to_config` gives it.
        report: what was fitted, on what; see `models.calibration.CalibrationReport`.
        model: `RunDirectory.fingerprint` at that time; earlier versions, which fitted once, wrote none.
        weights: `RunDirectory.weights_digest` of what it was fitted to.
    """

    calibration: dict[str, Any]
    report: dict[str, Any]
    model: str = ""
    weights: str = ""

    def fits(self, run: RunDirectory) -> bool:
        """Whether it was fitted for the run as its config and its weights are now."""
        return (self.model, self.weights) == (run.fingerprint, run.weights_digest)


class TrainedRun:
    """A run that was trained, handed from step to step; TensorFlow is imported when a model is asked for.

    Args:
        run: its directory, or the path of it.
        data: the data directory that it was trained on, where that is open already.
    """

    def __init__(self, run: RunDirectory | str | Path, data: DataDirectory | None = None) -> None:
        self.run = run if isinstance(run, RunDirectory) else RunDirectory.open(run)
        if data is not None:
            self.data = data

    @functools.cached_property
    def data(self) -> DataDirectory:
        """The data directory that the run was trained on.

        Raises:
            ConfigError: it is gone, or holds other data now; the message names both fingerprints.
        """
        data = DataDirectory.open(self.run.data_path)
        if data.fingerprint != self.run.data_fingerprint:
            raise ConfigError(
                "a run is exported with the data it was trained on",
                f"{data.path} is {data.fingerprint}, the run was trained on "
                f"{self.run.data_fingerprint}",
                "Restore that data directory, or train again.",
            )
        return data

    @functools.cached_property
    def transform(self) -> FeatureTransform:
        """The transform of its data.

        Raises:
            ConfigError: it is not the one that the run was trained with.
        """
        from pipeline.statistics.feature_statistics import FeatureStatistics
        from pipeline.transform.feature_transform import FeatureTransform

        statistics = FeatureStatistics.load(self.data.path / "statistics")
        transform = FeatureTransform(self.data.schema, statistics)
        if transform.spec.fingerprint != self.run.spec.fingerprint:
            raise ConfigError(
                "the transform must be the one that the run was trained with",
                f"transform {transform.spec.fingerprint}, run {self.run.spec.fingerprint}",
                "Preprocess and train again with this version of clickparity.",
            )
        return transform

    @functools.cached_property
    def model(self) -> CTRModel:
        """The trained model without dropout, in float32.

        Raises:
            ConfigError: the run is not trained yet, or its weights are damaged.
        """
        return self.run.load_model(dropout=0.0)

    @functools.cached_property
    def calibration(self) -> Calibration:
        """The calibration that was fitted for the run.

        Raises:
            ConfigError: there is none, or it was fitted to other weights or by another config.
        """
        from models.calibration import Calibration

        stored = self.run.read_report("calibration.json", StoredCalibration)
        is_old = self.run.format == 1 and not stored.model
        if not (is_old or stored.fits(self.run)):
            raise ConfigError(
                "a run's calibration must be fitted to its weights, as its config says",
                f"{self.run.path / 'calibration.json'} of model {stored.model or '(none)'} with weights "
                f"{stored.weights[:12] or '(none)'}, the run is {self.run.fingerprint} with weights "
                f"{self.run.weights_digest[:12] or '(none)'}",
                "Run the same `clickparity train` or `clickparity run` again: it fits it anew.",
            )
        return Calibration.from_config(stored.calibration)
