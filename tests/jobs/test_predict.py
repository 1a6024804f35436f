"""`clickparity predict` on files of raw rows: the answers of the run, whatever the format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
import pytest

from pipeline.errors import ConfigError
from serving.client.client import PredictClient
from serving.server.local_server import LocalServer
from tests.jobs.conftest import Outcome, logits_in_memory
from tests.serving.server_fixtures import MODEL, export, publish

Cli = Callable[..., Outcome]
NUM_ROWS = 40
TSV_SCHEMA = """
name: headerless
source:
  kind: csv
  delimiter: "\\t"
  header: false
  quote: null
  columns: [click, time, "n{1..6}", "c{1..12}", tags, true_probability]
label: click
features:
  - {name: "n{1..6}", kind: numeric, log1p: true, missing_indicator: true}
  - {name: "c{1..12}", kind: categorical}
  - {name: tags, kind: sequence, separator: "|", max_length: 8}
  - {name: time, kind: datetime, format: epoch_s, parts: [hour, weekday]}
time: {column: time, format: epoch_s}
"""


@pytest.fixture(scope="module")
def server(tiny_work) -> Iterator[LocalServer]:
    with LocalServer(tiny_work.path / "models") as server:
        server.wait_until_available("ctr", timeout_s=120)
        yield server


@pytest.fixture(scope="module")
def rows(tiny_log: Path) -> pa.Table:
    """The first rows of the raw log, all columns as text."""
    path = sorted(tiny_log.glob("*.csv"))[0]
    names = path.read_text().split("\n", 1)[0].replace('"', "").split(",")
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
    )
    return pyarrow.csv.read_csv(path, convert_options=options)[:NUM_ROWS]


@pytest.fixture(scope="module")
def expected(layer_run, tiny_data, tiny_log: Path) -> np.ndarray:
    """Logits of the same rows from the model in memory, read as preprocessing reads them."""
    first = sorted(tiny_log.glob("*.csv"))[0]
    return logits_in_memory(layer_run, tiny_data, first, NUM_ROWS)


def write_csv(rows: pa.Table, path: Path) -> Path:
    lines = [",".join(rows.column_names)]
    lines += [",".join(row.values()) for row in rows.to_pylist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def typed(rows: pa.Table) -> pa.Table:
    """Numbers as numbers, missing as null, as a warehouse would export them."""
    columns = {}
    for name in rows.column_names:
        empty = pa.compute.equal(rows[name], "")
        values = pa.compute.if_else(empty, None, rows[name])
        numeric = name[0] == "n"
        columns[name] = values.cast(pa.float64()) if numeric else values
    return pa.table(columns)


def without_label(rows: pa.Table) -> pa.Table:
    return rows.drop_columns(["click", "true_probability"])


def asked(cli: Cli, server: LocalServer, path: Path, *more: object) -> np.ndarray:
    argv = ["predict", "--address", server.grpc_address, "--name", "ctr", "--input", path]
    result = cli(*argv, "--json", *more).result
    assert result["rows"] == len(result["probability"]) == len(result["logit"])
    probability = 1 / (1 + np.exp(-np.array(result["logit"])))
    np.testing.assert_allclose(result["probability"], probability, rtol=1e-5)
    return np.array(result["logit"])


def test_a_csv_with_a_header(cli: Cli, server, rows, expected, tmp_path: Path) -> None:
    logits = asked(cli, server, write_csv(without_label(rows), tmp_path / "rows.csv"))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_columns_in_any_order_and_more_than_needed(
    cli: Cli, server, rows, expected, tmp_path: Path
) -> None:
    shuffled = rows.select(rows.column_names[::-1])
    logits = asked(cli, server, write_csv(shuffled, tmp_path / "rows.csv"))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_parquet(cli: Cli, server, rows, expected, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(typed(without_label(rows)), path)
    np.testing.assert_allclose(asked(cli, server, path), expected, rtol=0, atol=1e-5)


def test_json_lines(cli: Cli, server, rows, expected, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    records = typed(without_label(rows)).to_pylist()
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    np.testing.assert_allclose(asked(cli, server, path), expected, rtol=0, atol=1e-5)


def as_lists(rows: pa.Table) -> pa.Table:
    """The tags as typed lists, the time as a time stamp: as a feature store keeps them."""
    tags = [[t for t in text.split("|") if t] for text in rows["tags"].to_pylist()]
    seconds = pa.compute.if_else(pa.compute.equal(rows["time"], ""), None, rows["time"])
    stamps = seconds.cast(pa.int64()).cast(pa.timestamp("s"))
    columns = {"tags": pa.array(tags), "time": stamps}
    kept = typed(without_label(rows)).drop_columns(list(columns))
    for name, values in columns.items():
        kept = kept.append_column(name, values)
    return kept


@pytest.mark.parametrize("named", [False, True])
def test_typed_lists_and_times_are_read_as_the_model_reads_them(
    cli: Cli, server, rows, expected, tiny_work, tmp_path: Path, named: bool
) -> None:
    (schema,) = (tiny_work.path / "models" / "ctr").glob("*/assets.extra/schema.yaml")
    parquet = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(as_lists(rows), parquet)
    lines = tmp_path / "rows.jsonl"
    records = as_lists(rows).drop_columns(["time"]).append_column("time", rows["time"]).to_pylist()
    lines.write_text("".join(json.dumps(r) + "\n" for r in records))
    for path in (parquet, lines):
        more: list[object] = []
        if named:
            own = tmp_path / f"{path.suffix[1:]}.yaml"
            own.write_text(schema.read_text() + f"source: {{kind: {path.suffix[1:]}}}\n")
            more = ["--schema", own]
        logits = asked(cli, server, path, *more)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_a_caller_s_lists_and_numbers_are_read_as_the_model_reads_them(
    server, rows, expected
) -> None:
    table = as_lists(rows)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    with PredictClient(server.grpc_address, "ctr") as client:
        np.testing.assert_allclose(client.predict(columns)["logit"], expected, rtol=0, atol=1e-5)
        assert client.schema.name == "synthetic"
        columns["tags"] = [["a\x1fb"]] * NUM_ROWS
        with pytest.raises(ConfigError, match=r"'tags'.*U\+001F"):
            client.predict(columns)


def test_a_model_that_does_not_describe_itself_gets_no_guesses(cli: Cli, tmp_path: Path) -> None:
    publish(export(tmp_path / "export", 1.0), tmp_path / "models", 1)
    list_of = pa.table({"price": [1.0], "city": [["a", "b"]]})
    pyarrow.parquet.write_table(list_of, tmp_path / "list.parquet")
    day = pa.array([0], pa.date32())
    pyarrow.parquet.write_table(pa.table({"price": [1.0], "city": day}), tmp_path / "day.parquet")
    (tmp_path / "list.jsonl").write_text('{"price": 1.0, "city": ["a", "b"]}\n')
    (tmp_path / "text.jsonl").write_text('{"price": 1.0, "city": "a"}\n')
    with LocalServer(tmp_path / "models") as server:
        server.wait_until_available(MODEL, timeout_s=120)
        argv = ["predict", "--address", server.grpc_address, "--name", MODEL, "--input"]
        for name in ("list.parquet", "day.parquet", "list.jsonl"):
            cli(*argv, tmp_path / name).refused(2, "city", name, "--schema")
        assert cli(*argv, tmp_path / "text.jsonl").code == 0


def test_tsv_without_a_header_by_its_schema(
    cli: Cli, server, rows, expected, tmp_path: Path
) -> None:
    schema, path = tmp_path / "schema.yaml", tmp_path / "rows.tsv"
    schema.write_text(TSV_SCHEMA)
    order = ["click", "time", *(f"n{i}" for i in range(1, 7)), *(f"c{i}" for i in range(1, 13))]
    order += ["tags", "true_probability"]
    records = rows.select(order).to_pylist()
    path.write_text("".join("\t".join(r.values()) + "\n" for r in records))
    logits = asked(cli, server, path, "--schema", schema)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_rest_and_only_the_first_rows(cli: Cli, server, rows, expected, tmp_path: Path) -> None:
    path = write_csv(rows, tmp_path / "rows.csv")
    argv = ["predict", "--address", server.rest_address, "--name", "ctr", "--input", path]
    out = cli(*argv, "--protocol", "rest", "--rows", "7").out
    found = [float(line) for line in out.splitlines()]
    probability = 1 / (1 + np.exp(-expected[:7].astype(np.float64)))
    np.testing.assert_allclose(found, probability, rtol=0, atol=1e-6)


def test_several_files_in_their_order(cli: Cli, server, rows, expected, tmp_path: Path) -> None:
    first = write_csv(rows[:10], tmp_path / "b.csv")
    second = write_csv(rows[10:], tmp_path / "a.csv")
    argv = ["predict", "--address", server.grpc_address, "--name", "ctr", "--json", "--input"]
    logits = cli(*argv, first, second).result["logit"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def refused(cli: Cli, server: LocalServer, path: Path, code: int, *phrases: str) -> None:
    argv = ["predict", "--address", server.grpc_address, "--name", "ctr", "--input", path]
    cli(*argv).refused(code, *phrases)


def test_files_that_are_not_what_the_model_takes(cli: Cli, server, rows, tmp_path: Path) -> None:
    lacking = write_csv(rows.drop_columns(["n3"]), tmp_path / "lacking.csv")
    refused(cli, server, lacking, 2, "n3")
    text = typed(rows).drop_columns(["n3"]).append_column("n3", pa.array(["many"] * NUM_ROWS))
    pyarrow.parquet.write_table(text, tmp_path / "text.parquet")
    outcome = cli(
        "predict", "--address", server.grpc_address, "--name", "ctr",
        "--input", tmp_path / "text.parquet",
    )  # fmt: skip
    assert outcome.code in (2, 4)
    outcome.refused(outcome.code, "n3")
    bad = tmp_path / "bad.csv"
    lines = write_csv(rows, tmp_path / "rows.csv").read_text().splitlines()
    bad.write_text("\n".join([*lines[:5], "just,three,fields", *lines[5:]]) + "\n")
    refused(cli, server, bad, 2, "every row must be readable", "bad.csv")
    refused(cli, server, tmp_path / "absent.csv", 2, "absent.csv")
    (tmp_path / "empty.csv").write_text("")
    outcome = cli(
        "predict", "--address", server.grpc_address, "--name", "ctr",
        "--input", tmp_path / "empty.csv",
    )  # fmt: skip
    assert outcome.code in (2, 4), outcome.err
    argv = ["predict", "--address", server.grpc_address, "--name", "other", "--input", bad]
    cli(*argv).refused(2, "other")
