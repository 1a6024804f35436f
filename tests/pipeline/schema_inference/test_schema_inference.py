"""Schema inference: the samples of real data sets, the synthetic log, and each format and kind."""

from __future__ import annotations

import argparse
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.input_listing import list_inputs
from pipeline.schema import FeatureSchema
from pipeline.schema_inference.infer import InferredSchema, infer_schema
from pipeline.schema_inference.sample import read_sample
from pipeline.sources import plan_blocks, read_block

ROWS = 400


def sample_data(name: str) -> Path:
    root = os.environ.get("CLICKPARITY_SAMPLE_DATA")
    if not root:
        pytest.skip("CLICKPARITY_SAMPLE_DATA is not set: no real rows to infer from")
    return Path(root) / name


def kinds(schema: FeatureSchema, columns: list[str]) -> dict[str, str]:
    """Column -> kind, patterns resolved."""
    return {
        getattr(f, "column", f.name): f.kind  # crosses read several columns; none is inferred
        for f in schema.resolve(columns).features
    }


def disagreements(path: Path, preset: str) -> dict[str, tuple[str | None, str | None]]:
    """Where the inferred kinds differ from the preset's: column -> (inferred, preset's)."""
    inferred = infer_schema(path)
    sample = read_sample(path, 1000)
    columns = list(sample.columns)
    mine = kinds(inferred.schema, columns)
    theirs = kinds(FeatureSchema.load(preset), columns)
    return {c: (mine.get(c), theirs.get(c)) for c in columns if mine.get(c) != theirs.get(c)}


# ------------------------------------------------------------ real samples


@pytest.mark.parametrize(
    "name",
    ["criteo_kaggle_samples/union_dedup.tsv.gz", "criteo_terabyte_day0_10k/day_0.part.txt"],
)
def test_criteo(name: str) -> None:
    inferred = infer_schema(sample_data(name))
    preset = FeatureSchema.load("criteo")
    assert inferred.schema.source.model_copy(update={"columns": ()}) == preset.source.model_copy(
        update={"columns": ()}
    )
    assert inferred.schema.label.column == "label"
    columns = inferred.schema.source.columns  # type: ignore[union-attr]
    mine = kinds(inferred.schema, list(columns))
    theirs = [f.kind for f in preset.features]
    differ = [c for c, kind in zip(columns[1:], theirs, strict=True) if mine[c] != kind]
    assert differ == ["f11"]  # I10: five or six small integers might be a code


def test_avazu() -> None:
    path = sample_data("avazu_samples/union_dedup.csv.gz")
    assert disagreements(path, "avazu") == {}
    inferred = infer_schema(path)
    assert inferred.schema.label.column == "click"
    assert inferred.schema.time is not None
    assert inferred.schema.time.format == "%y%m%d%H"
    assert set(inferred.left_out) == {"id"}


@pytest.mark.parametrize("name", ["bts_all", "random_men"])
def test_open_bandit(name: str) -> None:
    path = sample_data(f"open_bandit/{name}.csv.gz")
    assert disagreements(path, "open_bandit") == {}
    inferred = infer_schema(path)
    assert inferred.schema.carry == ("propensity_score",)
    assert set(inferred.left_out) == {"", "propensity_score"}
    assert "user-item_affinity_{0.." in inferred.yaml


def test_upworthy() -> None:
    path = sample_data("upworthy_exploratory/upworthy_clean.parquet")
    assert disagreements(path, "upworthy") == {
        "clickability_test_id": ("categorical", None),  # the preset splits by it
        "excerpt": ("sequence", None),
        "test_week": ("categorical", None),
    }
    inferred = infer_schema(path)
    assert (inferred.schema.label.clicks, inferred.schema.label.impressions) == (
        "clicks",
        "impressions",
    )
    leaks = {"significance", "winner", "first_place", "winner_count_anomaly", "ctr"}
    assert set(inferred.left_out) == {"index", *leaks}
    assert all("leak" in inferred.left_out[name] for name in leaks)


def test_the_synthetic_log(tmp_path: Path) -> None:
    from pipeline.synthetic.log import SyntheticLog, write_log

    (path,) = write_log(SyntheticLog(num_rows=20_000), tmp_path, num_files=1)
    assert disagreements(path, "synthetic") == {}
    schema = infer_schema(path).schema
    assert schema.carry == ("true_probability",)
    assert schema.time is not None
    assert schema.time.format == "epoch_s"
    (tags,) = (f for f in schema.features if f.kind == "sequence")
    assert (tags.separator, tags.keep) == ("|", "first")


# ------------------------------------------------------------ formats


def log_table(num_rows: int = ROWS) -> pa.Table:
    rng = np.random.default_rng(0)
    click = (rng.random(num_rows) < 0.2).astype(int)
    return pa.table(
        {
            "click": click,
            "site_id": rng.integers(1, 30, num_rows),
            "price": rng.lognormal(3, 1, num_rows).round(2),
            "visits": rng.geometric(0.1, num_rows),
            "page": [f"/p{i % 17}" for i in rng.integers(0, 99, num_rows)],
            "shown_at": [f"2024-05-{1 + i % 9:02d} {i % 24:02d}:00:00" for i in range(num_rows)],
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    """Writes the log in the format that the name asks for."""
    name = path.name
    rows = table.to_pylist()
    if ".parquet" in name:
        pq.write_table(table, path)
    elif ".jsonl" in name:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ".tfrecord" in name:
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(path)) as out:
            for row in rows:
                example = tf.train.Example()
                for key, value in row.items():
                    feature = example.features.feature[key]
                    if isinstance(value, str):
                        feature.bytes_list.value.append(value.encode())
                    elif isinstance(value, float):
                        feature.float_list.value.append(value)
                    else:
                        feature.int64_list.value.append(value)
                out.write(example.SerializeToString())
    else:
        separator = "\t" if "tsv" in name else "|" if "pipe" in name else ","
        lines = [separator.join(table.column_names)]
        lines += [separator.join(str(v) for v in row.values()) for row in rows]
        text = ("\n".join(lines) + "\n").encode()
        path.write_bytes(gzip.compress(text, mtime=0) if name.endswith(".gz") else text)
    return path


KINDS = {
    "site_id": "categorical",
    "price": "numeric",
    "visits": "numeric",
    "page": "categorical",
    "shown_at": "datetime",
}


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.tsv", "a.pipe", "a.csv.gz", "a.parquet", "a.jsonl", "a.tfrecord"],
)
def test_every_format_gives_the_same_kinds(name: str, tmp_path: Path) -> None:
    path = write(log_table(), tmp_path / name)
    blind = path.rename(tmp_path / "no_ending")  # by content, not by name
    inferred = infer_schema(blind)
    assert kinds(inferred.schema, log_table().column_names) == KINDS
    assert inferred.schema.label.column == "click"
    expected = {"parquet": "parquet", "jsonl": "jsonl", "tfrecord": "examples"}
    assert inferred.schema.source.kind == expected.get(name.split(".")[1], "csv")


def test_what_is_inferred_reads_the_file(tmp_path: Path) -> None:
    from pipeline.input_listing import list_inputs
    from pipeline.sources import plan_blocks, read_block

    path = write(log_table(), tmp_path / "a.pipe")
    plan = plan_blocks(infer_schema(path).schema, list_inputs([str(path)]))
    chunks = [c for block in plan.blocks for c in read_block(block, plan.schema)]
    assert sum(c.table.num_rows for c in chunks) == ROWS
    assert not any(c.rejects for c in chunks)


def test_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f'{i % 2},"a, ""b""\nc{i % 5}",{i % 7}' for i in range(60)]
    path.write_text("click,text,n\n" + "\n".join(rows) + "\n")
    source = infer_schema(path).schema.source
    assert source.quote == '"'  # type: ignore[union-attr]
    assert source.newlines_in_values  # type: ignore[union-attr]


# ------------------------------------------------------------ kinds and columns


def infer(columns: dict[str, list[object]], tmp_path: Path, **keywords: object) -> InferredSchema:
    path = write(pa.table(columns), tmp_path / "log.parquet")
    return infer_schema(path, **keywords)  # type: ignore[arg-type]


def clicks(num_rows: int = ROWS) -> list[object]:
    return [int(i % 5 == 0) for i in range(num_rows)]


@pytest.mark.parametrize(
    ("values", "format_"),
    [
        ([1_700_000_000 + 60 * i for i in range(ROWS)], "epoch_s"),
        ([1_700_000_000_000 + 60 * i for i in range(ROWS)], "epoch_ms"),
        ([14102100 + i % 24 for i in range(ROWS)], "%y%m%d%H"),
        ([20141001 + i % 24 for i in range(ROWS)], "%Y%m%d"),
        ([f"2014-10-{1 + i % 24:02d}" for i in range(ROWS)], "%Y-%m-%d"),
        ([f"2014-10-21T{i % 24:02d}:00:00Z" for i in range(ROWS)], "iso"),
    ],
)
def test_times(values: list[object], format_: str, tmp_path: Path) -> None:
    inferred = infer({"click": clicks(), "time": values}, tmp_path)
    (feature,) = inferred.schema.features
    assert (feature.kind, feature.format) == ("datetime", format_)  # type: ignore[union-attr]
    assert inferred.schema.time is not None
    assert inferred.schema.time.format == format_


@pytest.mark.parametrize("separator", ["|", ";", ",", " "])
def test_separators(separator: str, tmp_path: Path) -> None:
    values: list[object] = [
        separator.join(f"t{(i * k) % 19}" for k in range(1, 2 + i % 6)) for i in range(ROWS)
    ]
    (feature,) = infer({"click": clicks(), "history": values}, tmp_path).schema.features
    assert (feature.kind, feature.separator) == ("sequence", separator)  # type: ignore[union-attr]
    assert (feature.max_length, feature.keep) == (8, "last")  # type: ignore[union-attr]


def test_columns_that_say_nothing_are_left_out_and_named(tmp_path: Path) -> None:
    inferred = infer(
        {
            "click": clicks(),
            "n_views": [i % 40 for i in range(ROWS)],
            "row": [10_000 + 7 * i for i in range(ROWS)],
            "uuid": [f"{i:032x}" for i in range(ROWS)],
            "country": ["kr"] * ROWS,
            "nothing": [None] * ROWS,
        },
        tmp_path,
    )
    assert kinds(inferred.schema, ["click", "n_views"]) == {"n_views": "numeric"}
    assert {n: r.split(" (")[0].split(" in ")[0] for n, r in inferred.left_out.items()} == {
        "row": "unique",
        "uuid": "unique",
        "country": "constant",
        "nothing": "empty",
    }
    for name in inferred.left_out:
        assert f"# {name}: " in inferred.yaml


def test_a_column_that_tells_the_label_is_a_leak_whatever_its_name(tmp_path: Path) -> None:
    label = clicks()
    inferred = infer(
        {
            "click": label,
            "landing": ["bought" if c else "left" for c in label],
            "seconds": [30.5 + i % 3 if c else 0.25 for i, c in enumerate(label)],
            "site": [i % 7 for i in range(ROWS)],
        },
        tmp_path,
    )
    assert set(inferred.left_out) == {"landing", "seconds"}
    assert "probable leak" in inferred.left_out["landing"]
    assert [f.name for f in inferred.schema.features] == ["site"]


def test_numbers_that_are_ids(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    columns: dict[str, list[object]] = {
        "click": clicks(),
        "age_group": rng.integers(1, 8, ROWS).astype(float).tolist(),  # floats: some were missing
        "x1": (rng.integers(1, 90, ROWS) * 7919).tolist(),  # sparse, far from zero
        "x2": rng.geometric(0.08, ROWS).tolist(),  # dense from one on
        "x3": rng.integers(0, 3, ROWS).tolist(),  # few
        "x4": [f"{i % 50:05d}" for i in range(ROWS)],  # zeros in front are not a number's
        "item_count": (rng.integers(1, 90, ROWS) * 7919).tolist(),
    }
    assert kinds(infer(columns, tmp_path).schema, list(columns)) == {
        "age_group": "categorical",
        "x1": "categorical",
        "x2": "numeric",
        "x3": "categorical",
        "x4": "categorical",
        "item_count": "numeric",
    }


def test_many_columns_become_few_lines(tmp_path: Path) -> None:
    """The shape of the Toss data: 119 columns, ids and numbers in families, a long sequence."""
    rng = np.random.default_rng(2)
    columns: dict[str, list[object]] = {
        "gender": [None if i % 50 == 0 else float(1 + i % 2) for i in range(ROWS)],
        "seq": [",".join(str(n) for n in rng.integers(1, 60, 1 + i % 90)) for i in range(ROWS)],
    }
    columns |= {f"l_feat_{i}": rng.integers(0, 5, ROWS).tolist() for i in (1, 2, 3, 5, 14, 20)}
    for family, size in (("feat_a", 18), ("feat_b", 6), ("history_a", 7)):
        columns |= {f"{family}_{i + 1}": rng.normal(size=ROWS).tolist() for i in range(size)}
    odd = [f"feat_x_{i * i}" for i in range(1, 12)]
    columns |= {name: rng.normal(size=ROWS).tolist() for name in odd}
    columns["feat_a_4"] = [0.5] * ROWS  # constant in the sample, but one of its family
    columns["clicked"] = clicks()
    inferred = infer(columns, tmp_path)
    found = kinds(inferred.schema, list(columns))
    assert found["seq"] == "sequence"
    assert found["gender"] == "categorical"
    assert {k for n, k in found.items() if n.startswith("l_feat")} == {"categorical"}
    assert {k for n, k in found.items() if n.startswith(("feat", "history"))} == {"numeric"}
    assert set(found) == set(columns) - {"clicked"}
    for line in ("feat_a_{1..18}", "feat_b_{1..6}", "history_a_{1..7}", "feat_x_*"):
        assert line in inferred.yaml
    assert "1 constant in the sample" in inferred.yaml
    assert inferred.yaml.count("\n") < 25


def test_a_pattern_never_catches_a_column_that_was_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    label = clicks()
    columns: dict[str, list[object]] = {"click": label}
    columns |= {f"f_{i * i}": rng.normal(size=ROWS).tolist() for i in range(1, 12)}
    columns["f_leak"] = [0.9 if c else 0.1 for c in label]
    inferred = infer(columns, tmp_path)
    assert "f_leak" in inferred.left_out
    assert "f_leak" not in kinds(inferred.schema, list(columns))


def test_nulls_in_numbers_and_odd_names(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    lines = [f"{i % 2},{'NA' if i % 3 else i * 1.5},{i % 4}" for i in range(90)]
    path.write_text("\n".join(["click,unit price (€),slot", *lines]) + "\n")
    schema = infer_schema(path).schema
    assert "NA" in schema.missing_texts, "as without being asked"
    price = schema.features[0]
    assert (price.kind, price.column) == ("numeric", "unit price (€)")  # type: ignore[union-attr]
    assert price.missing_indicator  # type: ignore[union-attr]


def test_images_and_lists(tmp_path: Path) -> None:
    tags: list[object] = [[f"t{i % 3}", f"t{i % 7}"] for i in range(ROWS)]
    columns: dict[str, list[object]] = {
        "click": clicks(),
        "banner": [b"\x89PNG\r\n\x1a\n" + bytes([i % 256]) for i in range(ROWS)],
        "path": [f"img/{i % 9}.png" for i in range(ROWS)],
        "tags": tags,
    }
    assert kinds(infer(columns, tmp_path).schema, list(columns)) == {
        "banner": "image",
        "path": "image",
        "tags": "sequence",
    }


def test_the_label(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "is_new": [i % 2 for i in range(ROWS)],
        "site": [i % 7 for i in range(ROWS)],
    }
    with pytest.raises(ConfigError, match=r"columns of 0 and 1: is_new.*--label"):
        infer(columns, tmp_path)
    assert infer(columns, tmp_path, label="is_new").schema.label.column == "is_new"
    with pytest.raises(ConfigError, match=r"'site'.*Columns of 0 and 1: is_new"):
        infer(columns, tmp_path, label="site")
    columns["was_clicked"] = clicks()
    assert infer(columns, tmp_path).schema.label.column == "was_clicked"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "which is empty"),
        (b"\n\n", "all lines empty"),
        (b"one column\nonly\n", "two columns or more"),
        (b"\x10\0\0\0\0\0\0\0garbage!", "whole tf.Example records"),
    ],
)
def test_files_that_are_no_log(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(DataError, match=message):
        infer_schema(tmp_path / "f")


def test_a_header_that_names_a_column_twice(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("click,a,a\n" + "0,x,y\n1,x,z\n" * 20)
    with pytest.raises(DataError, match="'a' twice"):
        infer_schema(tmp_path / "f")


def test_the_job_writes_a_new_file_only(tmp_path: Path) -> None:
    from jobs.commands import schema

    path = write(log_table(), tmp_path / "log.csv")
    arguments = argparse.Namespace(
        file=str(path), out=str(tmp_path / "s.yaml"), label=None, sample_rows=1000
    )
    result, _ = schema.main(arguments)
    assert FeatureSchema.load(tmp_path / "s.yaml").label.column == "click"
    assert "left_out" in result
    with pytest.raises(ConfigError, match="must be a new file"):
        schema.main(arguments)
    arguments.out = None
    assert schema.main(arguments)[1].startswith("# Inferred by")


# ------------------------------------------------------------ what is proposed is what is read


def proposed(path: Path) -> tuple[FeatureSchema, pa.Table]:
    """A file's proposal, and the file read by it; nothing is rejected."""
    plan = plan_blocks(infer_schema(path).schema, list_inputs([str(path)]))
    chunks = [c for block in plan.blocks for c in read_block(block, plan.schema)]
    assert [r.reason for c in chunks for r in c.rejects] == []
    return plan.schema, pa.concat_tables([c.table for c in chunks])


def test_a_korean_file_from_excel(tmp_path: Path) -> None:
    path = tmp_path / "로그.csv"
    lines = [
        f"{bool(i % 3 == 0)};{i % 7}번;{i * 7 % 900 + 1},5;1.{i:03d},25;서울|부산"
        for i in range(200)
    ]
    path.write_text("클릭;광고;가격;매출;도시\n" + "\n".join(lines), encoding="utf-8-sig")
    inferred = infer_schema(path, label="클릭")
    columns = {f.column: f for f in inferred.schema.features}  # type: ignore[union-attr]
    assert {c: f.kind for c, f in columns.items()} == {
        "광고": "categorical", "가격": "numeric", "매출": "numeric",
    }  # fmt: skip
    source = inferred.schema.source
    assert (source.delimiter, source.decimal, source.thousands) == (";", ",", ".")  # type: ignore[union-attr]
    assert [f.name for f in inferred.schema.features] == ["column_2", "column_3", "column_4"]
    plan = plan_blocks(inferred.schema, list_inputs([str(path)]))
    (chunk,) = [c for block in plan.blocks for c in read_block(block, plan.schema)]
    assert chunk.rejects == []
    assert chunk.table["가격"].to_pylist() == [i * 7 % 900 + 1.5 for i in range(200)]
    assert chunk.table["매출"].to_pylist() == [1000 + i + 0.25 for i in range(200)]
    assert chunk.table["클릭"].to_pylist() == [float(i % 3 == 0) for i in range(200)]


def test_lists_whose_items_hold_commas(tmp_path: Path) -> None:
    genres = ["Action, Adventure", "Drama", "Kids, Family", "Sci-Fi|Fantasy"]
    rows = [[genres[i % 4], genres[(i // 4) % 4]] for i in range(400)]
    table = pa.table(
        {
            "genres": rows,
            "one": [[i % 9] for i in range(400)],
            "click": [int(i * 7919 % 11 < 4) for i in range(400)],
        }
    )
    pq.write_table(table, tmp_path / "f.parquet")
    schema, read = proposed(tmp_path / "f.parquet")
    by_name = {f.name: f for f in schema.features}
    assert by_name["genres"].separator == ";"  # type: ignore[union-attr]
    assert by_name["one"].kind == "sequence"
    assert read["genres"].to_pylist()[1] == b"Drama;Action, Adventure"


def test_lists_in_brackets_and_movielens(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"
    lines = [f"{i % 90}::{i % 70}::[{i % 5}, {i % 3 + 10}]::{i % 2}" for i in range(500)]
    path.write_text("user::movie::feat::click\n" + "\n".join(lines) + "\n")
    schema, _ = proposed(path)
    assert schema.source.delimiter == "::"  # type: ignore[union-attr]
    feat = next(f for f in schema.features if f.name == "feat")
    assert (feat.kind, feat.separator) == ("sequence", ",")  # type: ignore[union-attr]


def test_fields_of_nested_objects(tmp_path: Path) -> None:
    rows = [
        {"click": int(i * 7919 % 11 < 4), "device": {"os": f"os{i % 4}", "deep": {"n": i % 6}}}
        for i in range(200)
    ]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    for kind in ("jsonl", "parquet"):
        schema, read = proposed(tmp_path / f"f.{kind}")
        assert {"device.os", "device.deep.n"} == {f.column for f in schema.features}  # type: ignore[union-attr]
        assert read["device.os"].to_pylist()[5] == b"os1"


@pytest.mark.parametrize("label", ["{}.0", "bool"])
def test_labels_are_read_as_numbers(tmp_path: Path, label: str) -> None:
    path = tmp_path / "f.csv"
    shown = [str(bool(i % 2)) if label == "bool" else label.format(i % 2) for i in range(300)]
    text = "click,site\n" + "".join(f"{y},s{i % 5}\n" for i, y in enumerate(shown))
    path.write_text(text)
    _, read = proposed(path)
    assert read["click"].to_pylist() == [float(i % 2) for i in range(300)]
    path.write_text(text + text)  # a header in the middle is a reject, not the end
    assert infer_schema(path).schema.label.column == "click"


def test_missing_values_are_what_statistics_count(tmp_path: Path) -> None:
    markers = ["", "NA", "NULL", "\\N", "nan", "None", "none", "-1", "x", "y"]
    path = tmp_path / "f.csv"
    lines = [f"{i % 2},{markers[i % 10]},{i % 7}" for i in range(400)]
    path.write_text("click,c,slot\n" + "\n".join(lines) + "\n")
    inferred = infer_schema(path)
    assert "60% missing" in next(line for line in inferred.yaml.splitlines() if "name: c," in line)
    _, read = proposed(path)
    assert read["c"].to_pylist().count(b"") == 240
