"""One YAML file a pipeline: schema, preprocessing, model, training, calibration, gates, export.

`--set section.option=value` overrides the file, the file overrides the defaults. Everything is
validated here, before data is touched; needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, ValidationError

from models.config.model import ModelConfig, parse_model_config
from models.config.train import TrainConfig, parse_train_config
from pipeline.errors import ConfigError
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.schema import explain_validation_error
from pipeline.statistics.drift import DriftConfig
from pipeline.strict_config import StrictConfig, config_error, configs_of_option, did_you_mean

__all__ = ["CalibrationConfig", "ExportConfig", "GateConfig", "RunConfig", "load_run_config"]


class CalibrationConfig(StrictConfig):
    """The residual calibrator, fitted on the validation split after the exact loss correction."""

    label: ClassVar[str] = "calibration"
    shorthand: ClassVar[str | None] = "kind"
    kind: Literal["platt", "isotonic", "none"] = "platt"


class GateConfig(StrictConfig):
    """Quality bars on the test split; a run below one is not exported (exit 3).

    Attributes:
        min_auc: of the test split.
        max_calibration_error: |mean prediction / mean label - 1|.
    """

    label: ClassVar[str] = "gate"
    min_auc: float | None = Field(None, ge=0, le=1)
    max_calibration_error: float | None = Field(None, gt=0)


class ExportConfig(StrictConfig):
    """Where and under what condition a run is published.

    Attributes:
        name: of the served model; a directory and part of its URL.
        accept_batch_gap: the batch gap, in logits, that is accepted of a model with batch statistics.
    """

    label: ClassVar[str] = "export"
    name: str = "ctr"
    accept_batch_gap: float | None = Field(None, gt=0)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole pipeline's configuration, validated."""

    schema: str
    model: ModelConfig
    train: TrainConfig
    preprocess: PreprocessConfig = PreprocessConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    drift: DriftConfig = DriftConfig()
    gate: GateConfig = GateConfig()
    export: ExportConfig = ExportConfig()

    def run_sections(self) -> dict[str, Any]:
        """What a run directory keeps of it, and what its fingerprint covers."""
        names = ("model", "train", "calibration", "gate", "export")
        return {name: getattr(self, name).model_dump(mode="json") for name in names}


_SECTIONS: dict[str, list[type[StrictConfig]]] = {
    "schema": [],
    "preprocess": [],
    "drift": [DriftConfig],
    "model": [ModelConfig],
    "train": [TrainConfig],
    "calibration": [CalibrationConfig],
    "gate": [GateConfig],
    "export": [ExportConfig],
}
_DEFAULTS: dict[str, Any] = {"schema": "", "model": {"name": "dcn_v2"}}


def load_run_config(path: str | Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a YAML file and applies `--set` overrides.

    Args:
        path: the file; None: defaults only.
        overrides: texts like "train.global_batch_size=512"; values are YAML.

    Raises:
        ConfigError: not readable, not YAML, an unknown section or option, a wrong value.
    """
    raw = _read(path) if path is not None else {}
    for section in raw:
        _check_section(section)
    for override in overrides:
        _apply(raw, override)
    merged = {**_DEFAULTS, **raw}
    model = merged["model"]
    if isinstance(model, Mapping) and "name" not in model:
        merged["model"] = {**_DEFAULTS["model"], **model}
    if not isinstance(merged["schema"], str):
        raise ConfigError("schema must be a preset's name or a file", repr(merged["schema"]))
    try:
        preprocess = PreprocessConfig.model_validate(merged.get("preprocess") or {})
    except ValidationError as error:
        raise explain_validation_error(error, PreprocessConfig, "preprocess") from None
    return RunConfig(
        schema=merged["schema"],
        model=parse_model_config(merged["model"]),
        train=parse_train_config(merged.get("train")),
        preprocess=preprocess,
        calibration=_section(CalibrationConfig, merged.get("calibration")),
        drift=_section(DriftConfig, merged.get("drift")),
        gate=_section(GateConfig, merged.get("gate")),
        export=_section(ExportConfig, merged.get("export")),
    )


def _section(kind: type[Any], raw: Any) -> Any:
    raw = kind.spelled_out(raw)
    if raw is not None and not isinstance(raw, Mapping):
        raise ConfigError(f"{kind.label} must be a mapping of options", repr(raw))
    try:
        return kind.model_validate(dict(raw or {}))
    except ValidationError as error:
        raise config_error(error, kind.label) from None


def _read(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if path.is_dir():
        raise ConfigError("--config must name a file", f"the directory {path}")
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            "--config must name a readable file", f"{path} ({error.strerror})"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise ConfigError(f"{path} must be YAML", where, "Mend that line.") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a YAML mapping of sections", type(raw).__name__)
    if isinstance(raw.get("schema"), str):
        beside = path.parent / raw["schema"]
        if raw["schema"].endswith((".yaml", ".yml")) and beside.is_file():
            raw["schema"] = str(beside)
    return raw


def _check_section(section: str) -> None:
    if section not in _SECTIONS:
        raise ConfigError(
            f"a config has no section {section!r}", None, did_you_mean(section, _SECTIONS)
        )


def _apply(raw: dict[str, Any], override: str) -> None:
    """Applies one "a.b=value" in place."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError("--set takes section.option=value", repr(override))
    *parents, last = key.split(".")
    _check_section(parents[0] if parents else last)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"the value of --set {key} must be YAML", repr(text)) from None
    if isinstance(value, str):
        value = _number(value)
    at, configs = raw, _SECTIONS.get(parents[0], []) if parents else []
    for depth, parent in enumerate(parents):
        if depth:
            configs = [c for config in configs for c in configs_of_option(config, parent)]
        below = at.get(parent)
        for config in configs:
            below = config.spelled_out(below)
        at[parent] = dict(below) if isinstance(below, Mapping) else {}
        at = at[parent]
    at[last] = value


def _number(text: str) -> Any:
    """YAML 1.1 reads 1e-3 as text; people mean the number."""
    try:
        return float(text)
    except ValueError:
        return text
