"""Families of config classes that anyone may add to: the models and the norms.

A family is a discriminated union without a list: a file adds its class with `@FAMILY.add`, and files
in the family's folder are found by scanning it. Plain data, no TensorFlow.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticUndefined

from pipeline.errors import ConfigError
from pipeline.strict_config import StrictConfig

__all__ = ["Registry", "Variant"]


class Variant(StrictConfig):
    """One member of a family, or the family's base, which reads as the member that the tag names.

    A base leaves the tag without a default (`kind: str`); a member names itself
    (`kind: Literal["rms"] = "rms"`) and is added with `@FAMILY.add`. A plain string stands for the
    tag alone.

    Class attributes:
        family: the registry of all members; set by the base.
        paper: authors, year and arXiv number; "" for what has no paper.
    """

    family: ClassVar[Registry[Any]]
    paper: ClassVar[str] = ""

    @classmethod
    def title(cls) -> str:
        """A line for the listing: the first of its docstring."""
        return (cls.__doc__ or "").split("\n")[0].rstrip(".")

    @classmethod
    def spelled_out(cls, raw: Any) -> Any:
        """A bare name as the mapping that it stands for: the family's tag."""
        return {cls.family.tag: raw.lower()} if isinstance(raw, str) else raw

    @classmethod
    def alternatives(cls) -> tuple[type[StrictConfig], ...]:
        """The members too: each has options of its own."""
        return (cls, *cls.family.values())

    @model_validator(mode="wrap")
    @classmethod
    def _as_its_member(cls, raw: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        raw = cls.spelled_out(raw)
        if not isinstance(raw, Mapping):
            return handler(raw)  # an instance; or something else, which pydantic refuses
        if cls.model_fields[cls.family.tag].is_required():
            chosen: type[Self] = cls.family.choose(raw)
            return chosen.model_validate(raw)
        return handler(cls.family.own_options(cls, raw))


_V = TypeVar("_V", bound=Variant)
_Added = TypeVar("_Added", bound=Variant)


class Registry(Mapping[str, type[_V]]):
    """The members of a family by name; those without a paper first, then by arXiv number.

    Args:
        noun: what a member is called in messages ("norm").
        label: the option that chooses a member ("model.norm").
        tag: the field that names the member ("kind").
        package: its folder; what lies there is imported, and so added, at the first look-up.
        holds: what is a member there: the "modules", or the "packages" below it.
        default: the member that is meant where none is named; None: one must be named.
        called: what messages make of a member's name.
    """

    def __init__(
        self,
        noun: str,
        *,
        label: str,
        tag: str,
        package: str,
        holds: Literal["modules", "packages"],
        default: str | None = None,
        called: str = "{}",
    ) -> None:
        self.noun, self.label, self.tag, self.default = noun, label, tag, default
        self._called = called
        self._folder = (package, holds == "packages")
        self._members: dict[str, type[_V]] = {}

    def add(self, member: type[_Added]) -> type[_Added]:
        """Adds a config class under the name that is the default of its tag; a class decorator.

        Raises:
            ConfigError: the class does not name itself, or the name is taken.
        """
        name, added = member.model_fields[self.tag].default, _qualified(member)
        if name is PydanticUndefined:
            raise ConfigError(
                f"a {self.noun} names itself by the default of its field {self.tag!r}",
                f"{added} without one",
                f'Write {self.tag}: Literal["my_{self.noun}"] = "my_{self.noun}" in it.',
            )
        there = self._members.setdefault(name, member)  # type: ignore[arg-type]
        if there is not member:
            raise ConfigError(
                f"two {self.noun}s cannot be registered under one name",
                f"{name!r} for {_qualified(there)} and for {added}",
                f"Change the {self.tag} of one of them.",
            )
        return member

    def __getitem__(self, name: str) -> type[_V]:
        return self._found()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._found(), key=self._age))

    def __len__(self) -> int:
        return len(self._found())

    def choose(self, raw: Mapping[str, Any]) -> type[_V]:
        """The member that a mapping of options names.

        Raises:
            ValidationError: it names none, or one that does not exist.
        """
        name = raw.get(self.tag, self.default)
        if isinstance(name, str) and name in self:
            return self[name]
        problem = InitErrorDetails(type="missing", loc=(self.tag,), input=dict(raw))
        if self.tag in raw:
            allowed = {"expected": ", ".join(map(repr, self))}
            problem = InitErrorDetails(
                type="literal_error", loc=(self.tag,), input=name, ctx=allowed
            )
        raise ValidationError.from_exception_data(self.noun, [problem])

    def own_options(self, member: type[Variant], raw: Mapping[str, Any]) -> dict[str, Any]:
        """The options without those of other members, which may be there only as their defaults.

        Configs saved by earlier versions hold every member's options, all but one's unused.

        Raises:
            ConfigError: another member's option has a value that would change nothing.
        """
        fields = member.model_fields
        name = fields[self.tag].default
        return self._own(name, {**self._found(), name: member}, raw, self.label)

    def _own(
        self,
        name: str,
        classes: Mapping[str, type[StrictConfig]],
        raw: Mapping[str, Any],
        label: str,
    ) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for option, value in raw.items():
            owners = {n: c.model_fields[option] for n, c in classes.items() if _has(c, option)}
            if name in owners:
                sections = {
                    n: type(field.default)
                    for n, field in owners.items()
                    if isinstance(field.default, StrictConfig)
                }
                is_section = name in sections and isinstance(value, Mapping)
                path = f"{label}.{option}"
                kept[option] = self._own(name, sections, value, path) if is_section else value
            elif not owners:
                kept[option] = value  # StrictConfig refuses it and names the nearest
            elif value is not None and all(value != f.default for f in owners.values()):
                names = sorted(owners, key=self._age)
                raise ConfigError(
                    f"{label}.{option} belongs to {self._called.format(' and '.join(names))}",
                    f"{self.label}.{self.tag}={name}, {label}.{option}={value!r}",
                    f"Leave it out, or set {self.label}.{self.tag}={names[0]}.",
                )
        return kept

    def _found(self) -> dict[str, type[_V]]:
        _import_members(*self._folder)
        return self._members

    def _age(self, name: str) -> tuple[list[str], str]:
        return self._members[name].paper.split()[-1:], name


def _has(config: type[StrictConfig], option: str) -> bool:
    return option in config.model_fields


def _qualified(member: type) -> str:
    return f"{member.__module__}.{member.__qualname__}"


@functools.cache
def _import_members(package: str, packages: bool) -> None:
    """Imports what lies directly in a package, so that it registers itself."""
    folder = importlib.import_module(package).__path__
    for found in pkgutil.iter_modules(folder, f"{package}."):
        if found.ispkg == packages:
            importlib.import_module(found.name)
