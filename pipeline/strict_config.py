"""A pydantic complaint as one message that a user can act on: the field, the rule, the value, the remedy.

Schemas, preprocessing options and model configs are all reported in the same form. No TensorFlow here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pipeline.errors import ConfigError

__all__ = [
    "Changes",
    "StrictConfig",
    "config_error",
    "configs_of_option",
    "did_you_mean",
    "explain_validation_error",
    "options_that_change",
]

_ALTERNATIVE = re.compile(r"^function|^constrained-|^literal\[|Config$")
_CHOICES = ("enum", "literal_error", "union_tag_invalid")


def did_you_mean(received: object, allowed: Iterable[str]) -> str:
    """A remedy sentence: the nearest allowed value, if one is near, and then all of them."""
    allowed = list(allowed)
    by_lower = {a.lower(): a for a in allowed}
    near = difflib.get_close_matches(str(received).lower(), by_lower, n=1, cutoff=0.6)
    guess = f"Did you mean {by_lower[near[0]]!r}? " if near else ""
    return f"{guess}Allowed: {', '.join(allowed)}."


class Changes(StrEnum):
    """The first step whose result an option changes; that step and those behind it depend on it.

    An option states it in its own annotation, `Annotated[int, Changes.NOTHING]`; else what its config
    states holds, and for a config inside another one what the option that holds it states.
    """

    DATA = "data"
    WEIGHTS = "weights"
    CALIBRATION = "calibration"
    EVALUATION = "evaluation"
    GATE = "gate"
    PUBLICATION = "publication"
    NOTHING = "nothing"


class StrictConfig(BaseModel):
    """A frozen pydantic model that refuses options it does not have.

    Class attributes:
        label: how messages call this config ("model.norm").
        changes: what its options change, see `Changes`; a section of a pipeline's config must state it.
        shorthand: the option that a bare name stands for: with "kind", `norm: layer` reads as
            `norm: {kind: layer}`. None: it must be a mapping.

    Raises:
        ConfigError: when an option does not exist; the message suggests the nearest one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    label: ClassVar[str] = "config"
    changes: ClassVar[Changes | None] = None
    shorthand: ClassVar[str | None] = None

    @classmethod
    def spelled_out(cls, raw: Any) -> Any:
        """A bare name as the mapping that it stands for; anything else as it is."""
        return {cls.shorthand: raw.lower()} if cls.shorthand and isinstance(raw, str) else raw

    @classmethod
    def alternatives(cls) -> tuple[type[StrictConfig], ...]:
        """The classes as which a mapping may be read: one, but for the base of a family."""
        return (cls,)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_options(cls, raw: Any) -> Any:
        raw = cls.spelled_out(raw)
        if isinstance(raw, Mapping):
            for key in raw:
                if key not in cls.model_fields:
                    raise ConfigError(
                        f"{cls.label} has no option {key!r}",
                        f"{cls.label}.{key}={raw[key]!r}",
                        did_you_mean(key, cls.model_fields),
                    )
        return raw


def options_that_change(config: StrictConfig, step: Changes) -> dict[str, Any]:
    """The options of a section on which a step's result depends, as plain JSON data.

    Raises:
        TypeError: the section does not state what its options change.
    """
    if config.changes is None:
        raise TypeError(f"{type(config).__name__} must state what its options change")
    return _that_change(config, step, config.changes)


def _that_change(config: StrictConfig, step: Changes, default: Changes) -> dict[str, Any]:
    found, plain = {}, config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        stated = next((m for m in field.metadata if isinstance(m, Changes)), default)
        value = getattr(config, name)
        if isinstance(value, StrictConfig):
            inside = _that_change(value, step, value.changes or stated)
            if inside or stated is step:
                found[name] = inside
        elif stated is step:
            found[name] = plain[name]
    return found


def config_error(error: ValidationError, label: str) -> ConfigError:
    """The first complaint about a config whose options may be `--set`, as one message.

    Args:
        error: what `model_validate` raised.
        label: the path in front of the field's ("model" for model.norm.kind).

    Returns:
        The `ConfigError` to raise instead; exit code 2.
    """
    first = error.errors()[0]
    path = ".".join([label, *_path(first["loc"])])
    others = len({tuple(_path(e["loc"])) for e in error.errors()}) - 1
    more = f" ({others} more of this config's values are wrong.)" if others else ""
    if first["type"] == "missing":
        remedy = f"Set it, for example with --set {path}=..."
        return ConfigError(f"{path} must be given", "nothing", remedy + more)
    if first["type"] in _CHOICES:
        rule, received, remedy = _choice(first)
        return ConfigError(f"{path} {rule}", received, remedy + more)
    return ConfigError(f"{path}: {_rule(first)}", repr(first["input"]), f"Change {path}.{more}")


def explain_validation_error(
    error: ValidationError, model: type[BaseModel], origin: str
) -> ConfigError:
    """The first complaint about a file (a schema, say), as one message.

    Args:
        error: what `model_validate` raised.
        model: what was validated; its field names are what an unknown field may have meant.
        origin: how messages call the file.

    Returns:
        The `ConfigError` to raise instead; exit code 2.
    """
    first = error.errors()[0]
    where = ".".join(_path(first["loc"]))
    place = f"{origin}: {where}" if where else origin
    # A tuple with a wrong item is counted as too short as well: one problem, not two.
    others = sum(e["type"] != "too_short" for e in error.errors()[1:])
    more = f" ({others} more problem{'s' if others > 1 else ''} after this one.)" if others else ""
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        allowed = _allowed_fields(model, first["loc"][:-1])
        remedy = did_you_mean(key, allowed) if allowed else "Remove it."
        return ConfigError(f"{place}: unknown field", repr(key), remedy + more)
    if first["type"] == "missing":
        return ConfigError(f"{place} must be given", "nothing", f"Add `{where}`.{more}")
    if first["type"] == "union_tag_not_found":
        tag = str(first["ctx"]["discriminator"]).strip("'")
        return ConfigError(f"{place}.{tag} must be given", "nothing", f"Add `{tag}: ...`.{more}")
    if first["type"] in _CHOICES:
        rule, received, remedy = _choice(first)
        return ConfigError(f"{place} {rule}", received, remedy + more)
    got = first.get("input")
    own = first["type"] == "value_error"  # our own rules say what they got
    shown = None if own or isinstance(got, (dict, BaseModel)) else repr(got)
    return ConfigError(f"{place}: {_rule(first)}", shown, f"Change {place}.{more}")


def _path(location: tuple[int | str, ...]) -> list[str]:
    """The fields alone: pydantic also names the alternatives of a union (`int | Literal["auto"]`)."""
    return [str(p) for p in location if not (isinstance(p, str) and _ALTERNATIVE.search(p))]


def _rule(complaint: Any) -> str:
    text = complaint["msg"].removeprefix("Value error, ")
    return text if text[:1] in ("`",) else text[:1].lower() + text[1:]


def _choice(complaint: Any) -> tuple[str, str, str]:
    """(rule, value received, remedy) where a value must be one of a few."""
    context, received = complaint["ctx"], complaint["input"]
    rule = "must be one of the allowed values"
    expected = context.get("expected")
    if complaint["type"] == "union_tag_invalid":
        expected, received = context["expected_tags"], context["tag"]
        rule = f"has a {str(context['discriminator']).strip(chr(39))} that does not exist"
    allowed = [v.strip(" '\"") for v in str(expected).replace(" or ", ", ").split(",")]
    return rule, repr(received), did_you_mean(received, allowed)


def _allowed_fields(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Field names at `path` inside `model`, following nested models and discriminated unions."""
    candidates: list[Any] = [model]
    for part in path:
        following: list[Any] = []
        for candidate in candidates:
            if isinstance(part, str) and part in candidate.model_fields:
                following += _models_in(candidate.model_fields[part].annotation)
            elif isinstance(part, int):
                following.append(candidate)
            else:  # the tag of a discriminated union
                kind = candidate.model_fields.get("kind") or candidate.model_fields.get("name")
                if kind is not None and kind.default == part:
                    following.append(candidate)
        candidates = following or candidates
    names = dict.fromkeys(name for c in candidates for name in c.model_fields)
    return list(names) if len(candidates) <= 2 else []


def configs_of_option(config: type[StrictConfig], option: str) -> list[type[StrictConfig]]:
    """The configs that an option may hold: none for a plain value, several for a union."""
    fields = [
        each.model_fields[option] for each in config.alternatives() if option in each.model_fields
    ]
    found = [model for field in fields for model in _models_in(field.annotation)]
    return [each for each in dict.fromkeys(found) if issubclass(each, StrictConfig)]


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[Any] = []
    for argument in getattr(annotation, "__args__", ()):
        found += _models_in(argument)
    if hasattr(annotation, "__metadata__"):
        found += _models_in(annotation.__origin__)
    return found
