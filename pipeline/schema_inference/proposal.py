"""Inferred features -> the YAML of a schema, with a comment a line and few lines for many columns."""

from __future__ import annotations

import collections
import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.schema import CsvFormat
from pipeline.schema_inference.column_kinds import CARRIED, Column
from pipeline.schema_inference.sample import Sample
from pipeline.values import parse_time

__all__ = ["agree_in_families", "is_headerless", "renamed", "to_yaml"]

_DAY = 86_400  # seconds
_MANY = 8  # columns of one stem


def _stem(name: str) -> str:
    return re.sub(r"\d+$", "", name)


def agree_in_families(
    features: list[dict[str, Any]], left_out: dict[str, str], headerless: bool
) -> None:
    """Numbered columns of one stem get the same options, so that one line can stand for them.

    A column that is constant in the sample joins its family where most others say something.
    """
    families: dict[Any, list[dict[str, Any]]] = collections.defaultdict(list)
    for item in features:
        stem = _stem(item["name"])
        if item["kind"] in ("numeric", "categorical") and stem != item["name"]:
            families[item["kind"] if headerless else stem].append(item)
    for stem, family in families.items():
        kinds = collections.Counter(item["kind"] for item in family)
        kind, agreeing = kinds.most_common(1)[0]
        # A few columns may differ in kind though they share a stem; of many, a stray one is noise.
        needed = len(family) if len(family) < _MANY or headerless else 0.7 * len(family)
        if len(family) < 3 or agreeing < needed:
            continue
        mine = [item for item in family if item["kind"] == kind]
        options: dict[str, Any] = {"kind": kind}
        for option in ("log1p", "missing_indicator", "min_count"):
            having = [item[option] for item in mine if option in item]
            if len(having) >= 0.5 * len(mine):
                options[option] = having[0]
        joining = (
            []
            if headerless
            else [
                name
                for name, reason in left_out.items()
                if _stem(name) == stem and reason.startswith(("constant", "empty"))
            ]
        )
        for name in joining:
            del left_out[name]
            features.append({"name": name, **options})
        for item in family:
            name = item["name"]
            item.clear()
            item.update({"name": name, **options})


def is_headerless(sample: Sample) -> bool:
    """Whether the file does not name its columns."""
    return isinstance(sample.source, CsvFormat) and not sample.source.header


def renamed(sample: Sample, chosen: dict[str, str]) -> list[str]:
    """The file's columns as the schema names them: the label of a file without a header has none."""
    if is_headerless(sample):
        return ["label" if name == chosen["column"] else name for name in sample.columns]
    return list(sample.columns)


def to_yaml(
    path: Path,
    sample: Sample,
    columns: dict[str, Column],
    chosen: dict[str, str],
    features: list[dict[str, Any]],
    left_out: dict[str, str],
    carry: list[str],
    times: dict[str, str],
) -> str:
    """The schema as commented YAML.

    Args:
        path: the file, for the schema's name.
        sample: its first rows.
        columns: their profiles, by name.
        chosen: the label, as `LabelSpec` writes it.
        features: as a schema writes them, one a column, in file order.
        left_out: why each other column is no feature.
        carry: columns that travel beside the rows.
        times: formats of the date-time columns, by name.
    """
    names = renamed(sample, chosen)
    source = sample.source.model_dump(mode="json", exclude_defaults=True)
    if is_headerless(sample):
        source["columns"] = _ranges(names)
        chosen = {"column": "label"}
    source = {"kind": sample.source.kind, **source}
    whole = "all" if sample.is_whole else "the first"
    lines = [
        f"# Inferred by `clickparity schema infer` from {whole} {sample.num_rows:,} rows of {path.name}.",
        "# A proposal: check the kinds, and above all that no feature is known only after the click.",
        f"name: {re.sub(r'[^A-Za-z0-9_]', '_', path.name.split('.')[0]) or 'log'}",
        f"source: {_flow(source)}",
        f"label: {_flow(chosen if len(chosen) > 1 else chosen['column'])}",
        "features:",
    ]
    taken: set[str] = set()
    for item, members in _grouped(features, list(sample.columns)):
        if len(members) == 1:
            item = _named(item, list(sample.columns).index(members[0]) + 1, taken)
        lines.append(f"  - {_flow(item)}  # {_describe(members, columns)}")
    for name, reason in left_out.items():
        leak = "probable leak, " if reason == CARRIED else ""
        lines.append(f"  # {name or '(no name)'}: {leak}{reason}")
    if times:
        column, time_format = next(iter(times.items()))
        lines.append(f"time: {_flow({'column': column, 'format': time_format})}")
        seconds = np.asarray(parse_time(columns[column].values, time_format).drop_null())
        if seconds.max(initial=0) - seconds.min(initial=2**62) > _DAY:
            lines.append("# The rows span more than a day: `by: time` tests on the newest ones.")
    if carry:
        lines.append(f"carry: {_flow(carry)}")
    lines.append("split: {by: row, validation: 0.1, test: 0.1}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _ranges(names: Sequence[str]) -> list[str]:
    """[f1, f2, f3] -> [f{1..3}]."""
    found = []
    for run in _runs([{"name": name} for name in names]):
        found += [_range_of(run)] if len(run) > 2 else [item["name"] for item in run]
    return found


def _runs(features: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Neighbours with the same options and stem whose numbers follow each other."""
    runs: list[list[dict[str, Any]]] = []
    for item in features:
        last = runs[-1][-1] if runs else None
        if last is not None and _follows(last, item):
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def _follows(one: dict[str, Any], other: dict[str, Any]) -> bool:
    a, b = (re.fullmatch(r"(.*?)(0|[1-9]\d*)", item["name"]) for item in (one, other))
    legal = re.fullmatch(r"[A-Za-z0-9_.\-]+", one["name"] + other["name"])
    if a is None or b is None or not legal or {**one, "name": ""} != {**other, "name": ""}:
        return False
    return a[1] == b[1] and int(b[2]) == int(a[2]) + 1


def _range_of(run: list[dict[str, Any]]) -> str:
    first, last = run[0]["name"], run[-1]["name"]
    stem = re.sub(r"\d+\Z", "", first)
    return f"{stem}{{{first[len(stem) :]}..{last[len(stem) :]}}}"


def _grouped(
    features: list[dict[str, Any]], all_names: list[str]
) -> list[tuple[dict[str, Any], list[str]]]:
    """(line of the schema, columns it stands for): ranges, and `*` for many of one stem."""
    found: list[tuple[dict[str, Any], list[str]]] = []
    runs = _runs(features)
    while runs:
        run = runs.pop(0)
        item = run[0]
        prefix = re.match(r".*[_\-]", item["name"])
        legal = prefix is not None and re.fullmatch(r"[A-Za-z0-9_.\-]+", prefix[0])
        if prefix is not None and legal and len(run) < _MANY:
            pattern = f"{prefix[0]}*"
            mine = [f for f in features if fnmatch.fnmatchcase(f["name"], pattern)]
            caught = fnmatch.filter(all_names, pattern)
            alike = all({**f, "name": ""} == {**item, "name": ""} for f in mine)
            if len(mine) >= _MANY and alike and set(caught) == {f["name"] for f in mine}:
                runs = [[f for f in other if f not in mine] for other in runs]
                runs = [other for other in runs if other]
                found.append(({**item, "name": pattern}, [f["name"] for f in mine]))
                continue
        if len(run) > 2:
            found.append(({**item, "name": _range_of(run)}, [f["name"] for f in run]))
            continue
        found += [(f, [f["name"]]) for f in run]
    return found


def _named(item: dict[str, Any], place: int, taken: set[str]) -> dict[str, Any]:
    """A feature whose column's name is no feature name gets another, none of those taken.

    Args:
        item: the feature as a schema writes it, named as its column.
        place: of the column in the file, from 1: the name of one in another script.
        taken: names given before; the new one is added.
    """
    plain = re.sub(r"[^A-Za-z0-9_.\-]", "_", item["name"])
    if not re.search(r"[A-Za-z0-9]", plain):
        plain = f"column_{place}"
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}_{number}", number + 1
    taken.add(name)
    if name == item["name"]:
        return item
    return {"name": name, "column": item["name"], **{k: v for k, v in item.items() if k != "name"}}


def _describe(members: list[str], columns: dict[str, Column]) -> str:
    known = [columns[name] for name in members if name in columns]
    if not known:
        return "encoded images"
    distinct = [len(c.values) for c in known]
    missing = max(c.missing for c in known)
    span = (
        f"{min(distinct):,} to {max(distinct):,}" if len(set(distinct)) > 1 else f"{distinct[0]:,}"
    )
    values = "value" if distinct == [1] else "values"
    text = f"{len(members)} columns, {span} values each" if len(members) > 1 else f"{span} {values}"
    constant = sum(n <= 1 for n in distinct) if len(members) > 1 else 0
    text += f", {constant} constant in the sample" if constant else ""
    return text + (f", up to {missing:.0%} missing" if missing >= 0.005 else "")
