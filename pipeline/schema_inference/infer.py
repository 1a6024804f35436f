"""A first schema from a sample of a file: kinds by values and names, with the reasons as comments.

It is a proposal to be read, not a verdict. Columns that say nothing (constant, unique a row) and those
that seem to know the label are left out, each with a comment.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.schema import FeatureSchema
from pipeline.schema_inference.column_kinds import CARRIED, Column, decide, is_binary, profile
from pipeline.schema_inference.proposal import agree_in_families, is_headerless, renamed, to_yaml
from pipeline.schema_inference.sample import Sample, read_sample

__all__ = ["InferredSchema", "infer_schema"]

_LABELS = ("click", "clicked", "label", "is_click", "is_clicked", "clk", "target", "y")
_LABEL_PART = re.compile(r"click|clk|label|target|convert|conversion", re.I)


@dataclasses.dataclass(frozen=True)
class InferredSchema:
    """A proposal.

    Attributes:
        schema: parsed from `yaml`; patterns unresolved.
        yaml: the same with comments.
        left_out: why each column that is no feature is none.
    """

    schema: FeatureSchema
    yaml: str
    left_out: dict[str, str]


def infer_schema(
    path: str | Path, sample_rows: int = 100_000, *, label: str | None = None
) -> InferredSchema:
    """Proposes a schema for one file from its first rows.

    Args:
        path: CSV or TSV (gzip or not), Parquet, JSON Lines or TFRecord of tf.Example.
        sample_rows: how many rows to look at.
        label: the label's column, when its name does not tell.

    Raises:
        DataError: the file is empty or of no known format.
        ConfigError: no column looks like a label, or `label` is not one.
    """
    sample = read_sample(path, sample_rows)
    columns = {
        name: profile(name, values, name in sample.lists)
        for name, values in sample.columns.items()
        if name not in sample.images
    }
    chosen = _choose_label(columns, label, sample)
    features: list[dict[str, Any]] = [{"name": name, "kind": "image"} for name in sample.images]
    left_out, carry, times = dict[str, str](), list[str](), dict[str, str]()
    for name, column in columns.items():
        if name in chosen.values():
            continue
        item, reason = decide(column, sample, columns, chosen)
        if item is None:
            left_out[name] = reason
            if reason == CARRIED:
                carry.append(name)
            continue
        features.append(item)
        if item["kind"] == "datetime":
            times[name] = item["format"]
    agree_in_families(features, left_out, is_headerless(sample))
    order = {name: i for i, name in enumerate(sample.columns)}
    features.sort(key=lambda item: order[item["name"]])
    if not features:
        raise ConfigError(
            "a schema needs a feature", f"{path}, whose columns are all left out: {left_out}"
        )
    text = to_yaml(Path(path), sample, columns, chosen, features, left_out, carry, times)
    schema = FeatureSchema.from_yaml(text, "the inferred schema")
    schema.resolve(renamed(sample, chosen))
    return InferredSchema(schema, text, left_out)


def _choose_label(columns: dict[str, Column], wanted: str | None, sample: Sample) -> dict[str, str]:
    """{"column": ...} or {"clicks": ..., "impressions": ...}."""
    binary = [name for name, column in columns.items() if is_binary(column)]
    if wanted is not None:
        if wanted not in binary:
            raise ConfigError(
                "--label must name a column of 0 and 1",
                repr(wanted),
                f"Columns of 0 and 1: {', '.join(binary[:10]) or 'none'}.",
            )
        return {"column": wanted}
    lower = {name.lower(): name for name in columns}
    for name in _LABELS:
        if lower.get(name) in binary:
            return {"column": lower[name]}
    for part in ("", "s"):
        shown = lower.get(f"impression{part}") or lower.get(f"view{part}")
        clicks = lower.get(f"click{part}")
        if shown and clicks and all(columns[c].all_match(r"^[0-9]+$") for c in (shown, clicks)):
            return {"clicks": clicks, "impressions": shown}
    likely = [n for n in binary if _LABEL_PART.search(n)]
    if not likely and is_headerless(sample):
        likely = [n for n in binary if n == next(iter(columns))]  # Criteo's comes first
    if likely:
        return {"column": likely[0]}
    raise ConfigError(
        "one column must look like a label (0 and 1, named click or the like; or clicks and "
        "impressions)",
        f"columns of 0 and 1: {', '.join(binary[:10]) or 'none'}",
        "Name it with --label.",
    )
