"""One YAML file a pipeline: schema, preprocessing, model, training, calibration, gates, export.

`--set section.option=value` overrides the file, the file overrides the defaults. Everything is
validated here, before data is touched; needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.config.calibration import CalibrationConfig
from models.config.model import ModelConfig, parse_model_config
from models.config.train import TrainConfig, parse_train_config
from pipeline.errors import ConfigError
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.statistics.drift import DriftConfig
from pipeline.strict_config import StrictConfig, config_error, configs_of_option, did_you_mean
from pipeline.yaml_text import parse_yaml, read_text
from serving.gates import ExportConfig, GateConfig

__all__ = ["RunConfig", "load_publication_config", "load_run_config"]


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
        """What a run directory keeps of it."""
        sections = (self.model, self.train, self.calibration, self.gate, self.export)
        return {c.label: c.model_dump(mode="json") for c in sections}


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
    for override in overrides:
        _apply(raw, override)
    merged = {**_DEFAULTS, **raw}
    model = merged["model"]
    if isinstance(model, Mapping) and "name" not in model:
        merged["model"] = {**_DEFAULTS["model"], **model}
    if not isinstance(merged["schema"], str):
        raise ConfigError("schema must be a preset's name or a file", repr(merged["schema"]))
    return RunConfig(
        schema=merged["schema"],
        model=parse_model_config(merged["model"]),
        train=parse_train_config(merged.get("train")),
        preprocess=_section(PreprocessConfig, merged.get("preprocess")),
        calibration=_section(CalibrationConfig, merged.get("calibration")),
        drift=_section(DriftConfig, merged.get("drift")),
        gate=_section(GateConfig, merged.get("gate")),
        export=_section(ExportConfig, merged.get("export")),
    )


def load_publication_config(
    kept: Mapping[str, Any], path: str | Path | None, overrides: Sequence[str] = ()
) -> tuple[GateConfig, ExportConfig]:
    """The two sections that decide whether, and as what, a finished run is published.

    Args:
        kept: the sections that the run keeps.
        path: a pipeline's YAML, whose `gate` and `export` sections replace those; None: none.
        overrides: texts like "export.accept_batch_gap=0.4", on top of both.

    Raises:
        ConfigError: an override of another section, or a wrong option or value.
    """
    names = (GateConfig.label, ExportConfig.label)
    given = _read(path) if path is not None else {}
    raw = {name: dict(kept.get(name) or {}) for name in names}
    raw.update({name: given[name] for name in names if name in given})
    for override in overrides:
        section = override.partition("=")[0].split(".")[0]
        if section in _SECTIONS and section not in names:
            raise ConfigError(
                "a run that is trained may change its gate and export options only",
                f"--set {override}",
                "Give the others to `clickparity train` or `clickparity run`, which do again what "
                "depends on them.",
            )
        _apply(raw, override)
    gate, export = (_section(kind, raw[kind.label]) for kind in (GateConfig, ExportConfig))
    return gate, export


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
        text = read_text(path)
    except OSError as error:
        raise ConfigError(
            "--config must name a readable file", f"{path} ({error.strerror})"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} must be YAML", error, "Save it as UTF-8 text.") from None
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a YAML mapping of sections", type(raw).__name__)
    if isinstance(raw.get("schema"), str):
        beside = path.parent / raw["schema"]
        if raw["schema"].endswith((".yaml", ".yml")) and beside.is_file():
            raw["schema"] = str(beside)
    for section in raw:
        _check_section(section)
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
    value = parse_yaml(text, f"the value of --set {key}")
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
