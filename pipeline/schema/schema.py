"""FeatureSchema: the definition with what is done to it: resolving patterns, reading and writing."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.schema.definition import SchemaDefinition
from pipeline.schema.features import feature_columns
from pipeline.schema.formats import DEFAULT_MISSING
from pipeline.schema.label_time_split import LabelSpec, SplitSpec
from pipeline.strict_config import explain_validation_error
from pipeline.yaml_text import parse_yaml, read_text

__all__ = ["FeatureSchema"]

PRESETS = Path(__file__).parent.parent / "schemas"


class FeatureSchema(SchemaDefinition):
    """One typed description of a data set.

    Attributes:
        name: of the data set.
        source: the file format.
        label: see `LabelSpec`; a column name is enough.
        features: in the order in which the model sees them. Before `resolve`, a name may hold
            `{1..13}` or `*`, standing for every column that matches.
        weight: a column of sample weights.
        time: see `TimeSpec`.
        split: see `SplitSpec`.
        carry: numeric columns kept beside the encoded rows for reports, never a model input.
        missing: texts that mean "missing" in any column; a feature may have its own.
        rules: 2 reads texts by docs/values.md; 1 takes them as they are written, as versions before it did.
    """

    @property
    def is_resolved(self) -> bool:
        """Whether every feature names one column (no `*` left)."""
        return not any("*" in f.name for f in self.features)

    def resolve(self, columns: Sequence[str]) -> FeatureSchema:
        """Replaces name patterns by the file's columns and checks that every needed column is there.

        A column that another feature, the label or a carried column names is never matched by a pattern.

        Raises:
            ConfigError: a column is missing (with the nearest name), or a pattern matches nothing.
        """
        taken = set(self.non_feature_columns)
        for f in self.features:
            if "*" not in f.name:
                taken |= set(feature_columns(f))
        features: list[Any] = []
        for f in self.features:
            if "*" not in f.name:
                features.append(f)
                continue
            matches = [c for c in columns if fnmatch.fnmatchcase(c, f.name) and c not in taken]
            if not matches:
                raise ConfigError(
                    f"the pattern {f.name!r} of schema {self.name!r} must match a column",
                    _shorten(columns),
                    "Remove the feature, or correct the pattern.",
                )
            taken |= set(matches)
            names = _feature_names(matches, {g.name for g in (*features, *self.features)})
            features += [
                f.model_copy(update={"name": name, "column": c})
                for c, name in zip(matches, names, strict=True)
            ]
        resolved = self.model_copy(update={"features": tuple(features)})
        try:
            resolved.check()  # what patterns match may collide
        except ValueError as error:
            raise ConfigError(
                str(error), None, "Give those columns features of their own, with a `name` each."
            ) from None
        resolved.check_columns(columns)
        return resolved

    def check_columns(self, columns: Sequence[str]) -> None:
        """Checks that every column that the schema reads exists, once.

        Raises:
            ConfigError: a column is missing; the message names the nearest one.
        """
        missing = [c for c in self.columns if c not in set(columns)]
        if missing:
            near = difflib.get_close_matches(missing[0], list(columns), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"every column of schema {self.name!r} must be in the file; missing: "
                + _shorten(missing),
                f"a file with columns {_shorten(columns)}",
                f"Correct the schema (or choose another with --schema).{hint}",
            )
        twice = sorted(c for c in self.columns if list(columns).count(c) > 1)
        if twice:
            raise ConfigError(
                "a column that the schema reads must occur once in the file",
                f"{_shorten(twice)} twice",
                "Rename one of them.",
            )

    def inputs_only(self) -> FeatureSchema:
        """The same without label, weight, time, split and carried columns: for scoring rows."""
        nothing = {"label": LabelSpec.model_construct(), "weight": None, "time": None, "carry": ()}
        return self.model_copy(update={**nothing, "split": SplitSpec()})

    # --------------------------------------------------------------- reading and writing

    def fingerprint(self) -> str:
        """16 hex digits that change whenever anything in the schema does, `rules` aside.

        A field that is younger than version 0.1 counts once it is set, so that earlier fingerprints hold.
        """
        raw = self.model_dump(mode="json", exclude={"rules"})
        if self.missing == DEFAULT_MISSING:
            del raw["missing"]
        for part, names in ((raw["source"], ("decimal", "thousands")),
                            *((f, ("missing",)) for f in raw["features"])):  # fmt: skip
            for name in names:
                if part.get(name) in (None, "."):
                    part.pop(name, None)
        text = json.dumps(raw, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The schema as YAML, without the defaults."""
        raw = self.model_dump(mode="json", exclude_defaults=True)
        for item, feature in zip(raw["features"], self.features, strict=True):
            item["kind"] = feature.kind
            if item.get("column") == item["name"]:
                del item["column"]
        if "source" in raw:
            raw["source"]["kind"] = self.source.kind
        return yaml.safe_dump(raw, sort_keys=False, width=100, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str, origin: str = "schema") -> FeatureSchema:
        """Parses and validates YAML text.

        Raises:
            ConfigError: not YAML, or not a schema; the message names field, value and remedy.
        """
        raw = parse_yaml(text, origin)
        if not isinstance(raw, dict):
            raise ConfigError(
                f"{origin} must be a YAML mapping",
                type(raw).__name__,
                "Begin with `name:`, `label:` and `features:`.",
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise explain_validation_error(error, cls, origin) from None

    @classmethod
    def load(cls, name_or_path: str | Path) -> FeatureSchema:
        """A preset by name (criteo, avazu, ...) or a YAML file by path.

        Raises:
            ConfigError: no such preset or file, or it is not a schema.
        """
        text = str(name_or_path)
        preset = PRESETS / f"{text}.yaml"
        path = Path(text)
        if preset.is_file() and not path.is_file():
            path = preset
        if not path.is_file():
            names = sorted(p.stem for p in PRESETS.glob("*.yaml"))
            near = difflib.get_close_matches(text, names, n=1)
            raise ConfigError(
                "--schema must name a preset or a YAML file",
                repr(text) + (" (a directory)" if path.is_dir() else ""),
                (f"Did you mean {near[0]!r}? " if near else "") + f"Presets: {', '.join(names)}.",
            )
        try:
            content = read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                "--schema must name a readable YAML file",
                f"{path} ({type(error).__name__})",
                "Is it a data file? Correct its permissions or name another.",
            ) from None
        return cls.from_yaml(content, str(path))


def _feature_names(columns: Sequence[str], taken: set[str]) -> list[str]:
    """A feature name for each column that a pattern matched, none of them taken."""
    names = []
    for place, column in enumerate(columns, 1):
        plain = re.sub(r"[^A-Za-z0-9_.\-]", "_", column)
        if not re.search(r"[A-Za-z0-9]", plain):
            plain = f"column_{place}"
        name, number = plain, 2
        while name in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def _shorten(names: Sequence[str], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return shown + (f", ... ({len(names)} in all)" if len(names) > limit else "")
