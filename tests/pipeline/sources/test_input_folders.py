"""Folders, links and globs as inputs: every row once, what is no data left out, and that is said."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.input_listing import list_inputs, partition_values
from pipeline.schema import FeatureSchema
from pipeline.sources import plan_blocks, read_block

DATA = ["a.csv", "day1/b.csv", "day1/deep/c.csv"]


def _names(root: Path, *patterns: str) -> list[str]:
    listing = list_inputs([str(root / p) if p else str(root) for p in patterns])
    return [os.path.relpath(f.path, root) for f in listing.files]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What Spark leaves: data, marks, a folder a day."""
    marks = ("_SUCCESS", "day1/_committed_123", "day1/_metadata", "day1/.b.csv.crc", "day1/x.crc")
    for name in (*DATA, *marks, "_temporary/t.csv", ".hidden/h.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("click,site\n1,x\n")
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "*", "**", "**/*"])
def test_a_folder_or_a_glob_gives_each_data_file_once(pattern: str, root: Path) -> None:
    assert _names(root, pattern) == DATA


def test_a_sub_folder_that_a_glob_matches_is_descended(root: Path) -> None:
    assert _names(root, "day*") == DATA[1:]
    assert _names(root, "*.csv") == DATA[:1]


def test_what_is_named_in_full_is_taken(root: Path) -> None:
    assert _names(root, "_SUCCESS", "_temporary") == ["_SUCCESS", "_temporary/t.csv"]


def test_what_was_left_out_is_said_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        _names(root, "")
    (line,) = [r.getMessage() for r in caplog.records if r.name == "pipeline.input_listing"]
    assert "_SUCCESS" in line
    assert "and 2 more" in line


def test_links_do_not_double_rows(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "latest").symlink_to(root / "day1")
    (root / "newest.csv").symlink_to(root / "a.csv")
    (root / "day1/loop").symlink_to(root)
    (root / "broken.csv").symlink_to(root / "nowhere")
    with caplog.at_level(logging.INFO):
        for patterns in ([""], ["*"], ["*", "latest/*"], ["day1", "latest", "a.csv", "newest.csv"]):
            assert _names(root, *patterns) == DATA
    assert "a second way to a file" in caplog.text
    assert "latest" in caplog.text
    assert _names(root, "latest/b.csv") == ["latest/b.csv"]


@pytest.mark.parametrize("pattern", ["empty", "empty/*", "_*/nothing", "marks/*"])
def test_no_data_is_an_error_that_names_what_was_left_out(pattern: str, root: Path) -> None:
    (root / "empty").mkdir()
    (root / "marks").mkdir()
    (root / "marks/_SUCCESS").touch()
    with pytest.raises(ConfigError, match="must match at least one file") as refused:
        _names(root, pattern)
    assert ("_SUCCESS" in str(refused.value)) == (pattern == "marks/*")


def test_partition_values() -> None:
    assert partition_values("/l/dt=2024-01-01/h=3/x=1.csv") == {"dt": "2024-01-01", "h": "3"}
    assert partition_values("s3://b/a=x%3Dy/k=__HIVE_DEFAULT_PARTITION__/f") == {
        "a": "x=y",
        "k": "",
    }


SCHEMA = """
name: x
source: {kind: KIND}
label: click
features:
  - {name: site, kind: categorical}
  - {name: dt, kind: categorical}
  - {name: hour, kind: numeric}
"""


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_folders_value_is_a_column_where_the_schema_names_it(kind: str, tmp_path: Path) -> None:
    for day in (1, 2):
        folder = tmp_path / f"log/dt=2024-01-0{day}/hour=0{day}/other=9"
        folder.mkdir(parents=True)
        rows = [{"click": i % 2, "site": f"s{day}{i}"} for i in range(3)]
        if kind == "parquet":
            pa.parquet.write_table(pa.Table.from_pylist(rows), folder / "part-0")
        elif kind == "jsonl":
            lines = [f'{{"click": {r["click"]}, "site": "{r["site"]}"}}\n' for r in rows]
            (folder / "part-0").write_text("".join(lines))
        else:
            lines = [f"{r['click']},{r['site']}\n" for r in rows]
            (folder / "part-0").write_text("click,site\n" + "".join(lines))
        (folder / "_SUCCESS").touch()
    schema = FeatureSchema.from_yaml(SCHEMA.replace("KIND", kind))
    plan = plan_blocks(schema, list_inputs([str(tmp_path / "log")]))
    tables = [c.table for b in plan.blocks for c in read_block(b, plan.schema)]
    rows = pa.concat_tables(tables).to_pylist()
    found = [(r["site"], r["dt"], r["hour"]) for r in rows]
    assert found == [
        (f"s{d}{i}".encode(), f"2024-01-0{d}".encode(), float(d)) for d in (1, 2) for i in range(3)
    ]


def test_a_split_by_the_folders_date(tmp_path: Path) -> None:
    from pipeline.preprocessing.job import preprocess

    for day in range(1, 6):
        folder = tmp_path / f"log/dt=2024-01-0{day}"
        folder.mkdir(parents=True)
        rows = "".join(f"{i % 2},s{i % 3}\n" for i in range(20))
        (folder / "part.csv").write_text("click,site\n" + rows)
    schema = FeatureSchema.from_yaml(
        "name: x\nsource: {kind: csv}\nlabel: click\ntime: {column: dt, format: '%Y-%m-%d'}\n"
        "features: [{name: site, kind: categorical}]\nsplit: {by: time, validation: 0.2, test: 0.2}\n"
    )
    data = preprocess(schema, [str(tmp_path / "log")], tmp_path / "data")
    assert [data.num_rows(s) for s in ("train", "validation", "test")] == [60, 20, 20]


def test_a_folders_value_that_is_no_number_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "dt=1/hour=noon"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("click,site\n1,a\n")
    schema = FeatureSchema.from_yaml(SCHEMA.replace("KIND", "csv"))
    plan = plan_blocks(schema, list_inputs([str(folder)]))
    with pytest.raises(DataError, match="hour=noon"):
        list(read_block(plan.blocks[0], plan.schema))


def test_the_files_own_column_wins(tmp_path: Path) -> None:
    folder = tmp_path / "dt=1/hour=2"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("click,site,dt,hour\n1,a,own,7\n")
    schema = FeatureSchema.from_yaml(SCHEMA.replace("KIND", "csv"))
    plan = plan_blocks(schema, list_inputs([str(folder)]))
    (chunk,) = read_block(plan.blocks[0], plan.schema)
    assert chunk.table.to_pylist()[0]["dt"] == b"own"


def test_a_schema_is_inferred_from_the_first_file_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.cli import main

    for day in (1, 2):
        folder = tmp_path / f"log/day{day}"
        folder.mkdir(parents=True)
        rows = "".join(f"{i % 2},s{i % 3}\n" for i in range(20))
        (folder / "part.csv").write_text("click,site\n" + rows)
        (folder / "_SUCCESS").touch()
    assert main(["schema", "infer", str(tmp_path / "log")]) == 0
    said = capsys.readouterr()
    assert "day1/part.csv, the first of 2 files" in said.err
    assert "site" in said.out
    (tmp_path / "none").mkdir()
    assert main(["schema", "infer", str(tmp_path / "none")]) == 2
