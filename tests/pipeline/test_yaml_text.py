"""YAML within bounds: what is refused is refused at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from jobs.config import load_run_config
from pipeline.errors import ConfigError
from pipeline.schema import FeatureSchema
from pipeline.yaml_text import parse_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    "text, phrase",
    [
        (LAUGHS, "aliases"),
        (MERGES, "aliases"),
        ("a: &a [*a]\n", "*a"),
        ("[" * 100_000, "levels deep"),
        ("a: " + "{b: " * 60 + "1" + "}" * 60, "levels deep"),
        ("x" * (17 << 20), "16 MiB"),
        ("a: 2001-13-45\n", "YAML"),
        ("a: *nowhere\n", "YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "YAML"),
    ],
    ids=[
        "laughs",
        "merges",
        "itself",
        "deep list",
        "deep map",
        "large",
        "date",
        "anchor",
        "object",
    ],
)
def test_hostile_documents_are_refused_at_once(text: str, phrase: str, tmp_path: Path) -> None:
    started = time.monotonic()
    path = tmp_path / "x.yaml"
    path.write_text(text)
    for read in (load_run_config, FeatureSchema.load, lambda p: parse_yaml(text, "text")):
        with pytest.raises(ConfigError, match="must") as refused:
            read(path)
        assert phrase in str(refused.value)
    assert time.monotonic() - started < 20


def test_aliases_within_bounds_stay() -> None:
    text = "base: &b {x: 1}\nlist: [*b, *b]\nmore: {<<: *b, y: 2}\n"
    assert parse_yaml(text, "text") == yaml.safe_load(text)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbfschema: criteo\n")
    assert load_run_config(tmp_path / "c.yaml").schema == "criteo"
