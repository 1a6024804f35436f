"""What can be chosen (models, normalizations, losses, their options), a line each. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
from typing import Any

from jobs.config import CalibrationConfig
from models.config.listing import OptionEntry, describe_models, option_entries
from models.config.train import BinaryCrossEntropyConfig, FocalConfig, PosWeightConfig, TrainConfig
from pipeline.strict_config import StrictConfig

__all__ = ["choices"]

_LOSSES: dict[str, type[StrictConfig]] = {
    "bce": BinaryCrossEntropyConfig,
    "pos_weight": PosWeightConfig,
    "focal": FocalConfig,
}


def choices() -> tuple[dict[str, Any], str]:
    """Models, normalizations, losses and calibrators with their options: plain data, and as text."""
    listing = describe_models()
    losses = {
        name: (
            (config.__doc__ or "").split("\n")[0],
            tuple(o for o in option_entries(config) if not o.path.endswith(".kind")),
        )
        for name, config in _LOSSES.items()
    }
    lines = ["Models (--set model.name=...)"]
    for model in listing.models:
        paper = f"{model.paper}; its norm: {model.paper_norm}"
        lines += [f"  {model.name:<12} {model.title} ({paper})", *_options(model.options)]
    lines += ["", "Options of every model", *_options(listing.model_options)]
    lines += ["", "Normalizations (--set model.norm=...)"]
    for norm in listing.norms:
        paper = f" ({norm.paper})" if norm.paper else ""
        lines += [f"  {norm.name:<14} {norm.title}{paper}", *_options(norm.options)]
    lines += ["", "Options of every normalization", *_options(listing.norm_options)]
    lines += ["", "Losses (--set train.loss=...)"]
    for name, (title, options) in losses.items():
        lines += [f"  {name:<12} {title}", *_options(options)]
    lines += ["", "Training", *_options(option_entries(TrainConfig))]
    lines += ["", "Calibration", *_options(option_entries(CalibrationConfig))]
    result = {
        **dataclasses.asdict(listing),
        "losses": {
            name: {"title": title, "options": [dataclasses.asdict(o) for o in options]}
            for name, (title, options) in losses.items()
        },
        "train_options": [dataclasses.asdict(o) for o in option_entries(TrainConfig)],
    }
    return result, "\n".join(lines)


def _options(options: tuple[OptionEntry, ...]) -> list[str]:
    return [f"      {o.path} = {_default(o.default)}: {o.line or o.values}" for o in options]


def _default(value: Any) -> str:
    return "none" if value is None else str(value)
