"""What `clickparity models` prints: every model and norm with its options, a line each.

The lines are the "Attributes" of the config classes' docstrings, so an option is described once.
Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from models.config.model import MODELS, ModelConfig
from models.norms.base import NORMS, NormConfig
from models.registry import Variant
from pipeline.strict_config import StrictConfig

__all__ = ["Listing", "ModelEntry", "NormEntry", "OptionEntry", "describe_models", "option_entries"]


@dataclasses.dataclass(frozen=True)
class OptionEntry:
    """One option: `--set path=value`.

    Attributes:
        path: where it is set ("model.cross.num_layers").
        values: what it accepts ("int", "parallel | stacked").
        default: its default as JSON data; None also where there is none.
        line: what it does.
    """

    path: str
    values: str
    default: Any
    line: str


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """One model with the options that it alone, or few, have."""

    name: str
    title: str
    paper: str
    paper_norm: str
    options: tuple[OptionEntry, ...]


@dataclasses.dataclass(frozen=True)
class NormEntry:
    """One normalization with the options that it alone has; `paper` is "" where there is none."""

    name: str
    title: str
    paper: str
    options: tuple[OptionEntry, ...]


@dataclasses.dataclass(frozen=True)
class Listing:
    """Everything that can be chosen under `model`; `dataclasses.asdict` makes it JSON data."""

    models: tuple[ModelEntry, ...]
    model_options: tuple[OptionEntry, ...]
    norms: tuple[NormEntry, ...]
    norm_options: tuple[OptionEntry, ...]


def describe_models() -> Listing:
    """All models, norms and their options."""
    return Listing(
        models=tuple(
            ModelEntry(
                name,
                model.title(),
                model.paper,
                _tag(model.paper_norm),
                option_entries(model, beyond=ModelConfig),
            )
            for name, model in MODELS.items()
        ),
        model_options=option_entries(ModelConfig),
        norms=tuple(
            NormEntry(kind, norm.title(), norm.paper, option_entries(norm, beyond=NormConfig))
            for kind, norm in NORMS.items()
        ),
        norm_options=option_entries(NormConfig),
    )


def option_entries(
    config: type[StrictConfig], beyond: type[StrictConfig] | None = None
) -> tuple[OptionEntry, ...]:
    """The options of one config class, in order; a group of options stands as its members.

    Args:
        config: the class.
        beyond: a base class whose options are left out.
    """
    lines = _attribute_lines(inspect.getdoc(config) or "")
    entries: list[OptionEntry] = []
    for name, field in config.model_fields.items():
        if beyond is not None and name in beyond.model_fields:
            continue
        default = field.get_default(call_default_factory=True)
        if isinstance(default, StrictConfig) and not isinstance(default, Variant):
            entries += option_entries(type(default))
            continue
        values, default = _values(field.annotation), _json(default)
        if issubclass(config, Variant) and name == config.family.tag:
            values, default = " | ".join(config.family), config.family.default
        entries.append(OptionEntry(f"{config.label}.{name}", values, default, lines.get(name, "")))
    return tuple(entries)


def _attribute_lines(doc: str) -> dict[str, str]:
    """The entries of a Google docstring's Attributes section, each on one line."""
    _, _, section = doc.partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section.split("\n\n")[0], re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}


def _values(annotation: Any) -> str:
    """What an annotation accepts, for people."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _values(args[0])
    if origin is Literal:
        return " | ".join(str(value) for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if arg is types.NoneType else _values(arg) for arg in args)
    if origin is tuple:
        return f"list of {_values(args[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(str(member.value) for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, Variant):
        return f"a {annotation.family.noun}'s name, or a mapping of {annotation.label} options"
    return "text" if annotation is str else str(getattr(annotation, "__name__", annotation))


def _json(default: Any) -> Any:
    if default is PydanticUndefined:
        return None
    if isinstance(default, Variant):
        return _tag(type(default))
    if isinstance(default, Enum):
        return default.value
    return list(default) if isinstance(default, tuple) else default


def _tag(member: type[Variant]) -> str:
    """The name under which a member of a family is chosen."""
    return str(member.model_fields[member.family.tag].default)
