"""The logs that the recipe is judged on: real samples where they are there, and synthetic ones."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import yaml

from pipeline.records.data_directory import DataDirectory

__all__ = ["LOGS", "RecipeLog", "available", "prepare"]

SAMPLES = "CLICKPARITY_SAMPLE_DATA"
_SPLIT = {"by": "row", "validation": 0.15, "test": 0.25}


@dataclasses.dataclass(frozen=True)
class RecipeLog:
    """A click log of the benchmark.

    Attributes:
        name: of its row in the table.
        files: below the sample data; empty: it is drawn.
        schema: a preset's name, or the whole schema.
        rows: of a drawn log.
        ctr: of a drawn log.
        seed: of a drawn log.
    """

    name: str
    files: str = ""
    schema: Any = "synthetic"
    rows: int = 0
    ctr: float = 0.0
    seed: int = 0


def _ids(*names: str, min_count: int = 1) -> list[dict[str, Any]]:
    return [{"name": name, "kind": "categorical", "min_count": min_count} for name in names]


_AMAZON = {
    "name": "amazon",
    "source": {"kind": "csv"},
    "label": "ACTION",
    "features": _ids(
        "RESOURCE",
        "MGR_ID",
        "ROLE_ROLLUP_1",
        "ROLE_ROLLUP_2",
        "ROLE_DEPTNAME",
        "ROLE_TITLE",
        "ROLE_FAMILY_DESC",
        "ROLE_FAMILY",
        "ROLE_CODE",
    ),
}
_HILLSTROM = {
    "name": "hillstrom",
    "source": {"kind": "csv"},
    "label": "visit",
    "features": [
        {"name": "recency", "kind": "numeric"},
        {"name": "history", "kind": "numeric", "log1p": True},
        *_ids("history_segment", "mens", "womens", "zip_code", "newbie", "channel", "segment"),
    ],
}
LOGS = (
    RecipeLog("amazon", "amazon_employee_access/train.csv.gz", _AMAZON),
    RecipeLog("hillstrom", "hillstrom_email/hillstrom.csv.gz", _HILLSTROM),
    RecipeLog("criteo kaggle", "criteo_kaggle_samples/union_dedup.tsv.gz", "criteo"),
    RecipeLog("criteo terabyte", "criteo_terabyte_day0_10k/day_0.part.txt", "criteo"),
    RecipeLog("avazu", "avazu_samples/union_dedup.csv.gz", "avazu"),
    RecipeLog("synthetic 0.2 %", rows=100_000, ctr=0.002),
    RecipeLog("synthetic 2 %", rows=100_000, ctr=0.02),
    RecipeLog("synthetic 20 %", rows=100_000, ctr=0.2),
)


def available(log: RecipeLog) -> bool:
    """Whether the log can be had here: drawn, or below $CLICKPARITY_SAMPLE_DATA."""
    return not log.files or (bool(os.environ.get(SAMPLES)) and _source(log).exists())


def prepare(log: RecipeLog, workdir: Path) -> DataDirectory:
    """Preprocesses the log, unless that is done: 60 % of the rows train, 15 % validate, 25 % test."""
    from pipeline.preprocessing.config import PreprocessConfig
    from pipeline.preprocessing.job import preprocess
    from pipeline.schema import FeatureSchema
    from pipeline.synthetic.log import SyntheticLog, write_log

    stem = log.name.replace(" ", "_").replace("%", "percent").replace(".", "p")
    goal = workdir / "data" / (f"{stem}_{log.rows}" if log.rows else stem)
    if (goal / "_SUCCESS").exists():
        return DataDirectory.open(goal)
    workdir.mkdir(parents=True, exist_ok=True)
    source = str(_source(log))
    if not log.files:
        raw = workdir / "logs" / goal.name
        write_log(SyntheticLog(log.rows, ctr=log.ctr, seed=log.seed), raw, num_files=2)
        source = str(raw / "*.csv")
    is_preset = isinstance(log.schema, str)
    whole = yaml.safe_load(FeatureSchema.load(log.schema).to_yaml()) if is_preset else log.schema
    path = workdir / f"{goal.name}.yaml"
    path.write_text(yaml.safe_dump({**whole, "split": _SPLIT}, sort_keys=False))
    return preprocess(FeatureSchema.load(str(path)), [source], goal, PreprocessConfig())


def _source(log: RecipeLog) -> Path:
    return Path(os.environ.get(SAMPLES, "")) / log.files
