"""Reports: what one step leaves for another, a frozen dataclass in memory and JSON in a file.

A report that is read is held against its fields' types: a document that lacks one, has another one or a
value of another type is refused, never read in part. Needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

__all__ = ["Report", "finite_or_none"]


class Report:
    """A base for frozen dataclasses."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; a field that has its default is left out."""
        found: dict[str, Any] = _plain(self)
        return found

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """The report that `to_json` gave.

        Raises:
            ValueError: it is none; the message names the field.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(document))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {
            f.name: _plain(v) for f in fields if not _is_default(f, v := getattr(value, f.name))
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return field.default is not dataclasses.MISSING and bool(value == field.default)


def finite_or_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None for every number that JSON cannot say."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()
    }
