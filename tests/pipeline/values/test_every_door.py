"""One value through every format and every door: equal everywhere, or refused, never another value."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.input_listing import list_inputs
from pipeline.schema import FeatureSchema
from pipeline.sources import plan_blocks, read_block
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.statistics.vocabulary import Vocabulary
from pipeline.transform.feature_transform import FeatureTransform
from pipeline.transform.serialized import parse_examples
from pipeline.values import column_rules
from serving.client.columns import convert_column

FORMATS = ("epoch_s", "epoch_ms", "epoch_us", "epoch_ns", "iso", "%Y-%m-%d", "%y%m%d%H")
UTC = datetime.UTC
REFUSED = "refused"


def schema_of(kind: str, time_format: str) -> FeatureSchema:
    hashed = {"max_vocab_size": 0, "num_oov_buckets": 1 << 30}
    return FeatureSchema.model_validate(
        {
            "name": "doors",
            "source": {"kind": kind},
            "label": "y",
            "features": [
                {"name": "id", "column": "아이디", "kind": "categorical", **hashed},
                {"name": "known", "column": "known", "kind": "categorical"},
                {"name": "x", "kind": "numeric", "scale": "none", "missing_indicator": True,
                 "missing": ["", "NA", "-999"]},
                {"name": "tags", "kind": "sequence", "separator": "|", "max_length": 6, **hashed},
                {"name": "when", "kind": "datetime", "format": time_format,
                 "parts": ["hour", "weekday", "day", "month"]},
                {"name": "pair", "kind": "cross", "of": ["아이디", "known"], **hashed},
            ],
        }
    )  # fmt: skip


def transform_of(time_format: str) -> FeatureTransform:
    numbers = {"prepared_mean": 0.0, "prepared_standard_deviation": 1.0}
    values = pa.array([b"true", b"12", b"1.5", b"2014-10-21"], pa.binary())
    vocabularies = {"known": Vocabulary(values, np.ones(len(values), np.int64), len(values))}
    statistics = FeatureStatistics({"numeric": {"x": numbers}, "text": {}}, vocabularies)
    return FeatureTransform(schema_of("csv", time_format), statistics)


@pytest.fixture(scope="module")
def transforms() -> dict[str, FeatureTransform]:
    return {form: transform_of(form) for form in FORMATS}


# ------------------------------------------------------------------------------------- what is drawn

WORDS = [
    *(
        "True",
        "FALSE",
        "true",
        "NULL",
        "NA",
        "nan",
        "\\N",
        "none",
        "-1",
        "12",
        "12.0",
        "1e3",
        "true|x",
    ),
    *("a,b", "a|b", "[a]", "['a', 'b']", " a ", "é", "광고", 'a"b', "it's", "[", "]", "x" * 40),
]
HOSTILE_ITEMS = [
    "a|b",
    "[a]",
    " a",
    "a ",
    "|",
    "True",
    "NULL",
    "",
    "[",
    "a,b",
    "'q'",
    "Action|Drama",
]
plain_text = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029"), max_size=8
)
texts = st.sampled_from(WORDS) | plain_text
items = st.sampled_from(HOSTILE_ITEMS) | texts
integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 10**11) | st.just(-999)
doubles = (
    st.floats(width=64)
    | st.integers(-(2**53), 2**53).map(float)
    | st.sampled_from([0.5, -0.0, 1e10 + 2, 2.0**53, 1e300, 1e-7, math.nan, math.inf, 1.5, -999.0])
)
decimals = st.decimals(-(10**8), 10**8, places=4, allow_nan=False, allow_infinity=False)
dates = st.dates(datetime.date(1971, 1, 1), datetime.date(2068, 12, 31))
stamps = st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2068, 12, 31, 23, 59, 59))
SCALARS: dict[str, tuple[Any, pa.DataType]] = {
    "text": (texts, pa.string()),
    "int": (integers, pa.int64()),
    "double": (doubles, pa.float64()),
    "bool": (st.booleans(), pa.bool_()),
    "decimal": (decimals, pa.decimal128(20, 4)),
    "date": (dates, pa.date32()),
}
ITEMS = {"text": (items, pa.string()), "int": SCALARS["int"], "bool": SCALARS["bool"]}
NUMBERS = {k: SCALARS[k] for k in ("int", "double", "bool", "decimal")}


@st.composite
def columns(draw: Any) -> dict[str, Any]:
    """A table: for each column (name of its type, values); None is missing."""
    rows = draw(st.integers(1, 5))

    def some(values: Any) -> list[Any]:
        return draw(st.lists(st.none() | values, min_size=rows, max_size=rows))

    id_type, x_type, item_type = (
        draw(st.sampled_from(sorted(kinds))) for kinds in (SCALARS, NUMBERS, ITEMS)
    )
    form = draw(st.sampled_from(FORMATS))
    unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
    typed = draw(st.sampled_from(["stamp", "date"]))
    return {
        "form": form,
        "unit": unit,
        "id": (id_type, some(SCALARS[id_type][0])),
        "x": (x_type, some(NUMBERS[x_type][0])),
        "tags": (item_type, some(st.lists(st.none() | ITEMS[item_type][0], max_size=4))),
        "when": (typed, some(dates if typed == "date" else stamps)),
        "zone": draw(st.sampled_from([None, "UTC"])),
    }


# ------------------------------------------------------------------------------------- what is expected


def said(value: Any) -> str | None:
    """What a text format writes for a typed value: the rules, written out by hand in Python."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isinf(value) or abs(value) >= 2**53:
            return None
        return str(int(value)) if value == int(value) else format(Decimal(repr(value)), "f")
    if isinstance(value, Decimal):
        text = format(value, "f")
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text in ("-0", "") else text
    return str(value)


def time_said(value: Any, form: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    if form.startswith("epoch"):
        micros = (value - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)
        scale = {"epoch_s": 1, "epoch_ms": 10**3, "epoch_us": 10**6, "epoch_ns": 10**9}[form]
        return str(micros * scale // 10**6)
    return value.strftime("%Y-%m-%d %H:%M:%S" if form == "iso" else form)


def list_said(items: list[Any] | None) -> str | None:
    """A list as a text file writes it; None where a text can only say something else."""
    kept = [text for i in items or [] if (text := said(i))]
    if any("'" in i or "\x1f" in i for i in kept):
        return None
    if all(i == i.strip(" ") and not set(i) & set("|[]\"'") for i in kept):
        return "|".join(kept)
    return "[" + "|".join(f"'{i}'" for i in kept) + "]"


# ------------------------------------------------------------------------------------- the doors


def write_csv(table: dict[str, Any], path: Path) -> bool:
    rows = []
    for i, known in enumerate(table["id"][1]):
        cells = [said(known), said(table["x"][1][i]), list_said(table["tags"][1][i])]
        number = table["x"][1][i]
        if cells[1] is None:
            cells[1] = repr(number)
        if None in cells:
            return False
        when = time_said(table["when"][1][i], table["form"])
        rows.append(["1", cells[0], cells[0], cells[1], cells[2], when])
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerows([["y", "아이디", "known", "x", "tags", "when"], *rows])
    path.write_text(out.getvalue(), encoding="utf-8", newline="")
    return True


def write_jsonl(table: dict[str, Any], path: Path) -> bool:
    lines = []
    for i in range(len(table["id"][1])):
        row = {"y": 1, "아이디": table["id"][1][i], "known": table["id"][1][i]}
        row |= {"x": table["x"][1][i], "tags": table["tags"][1][i]}
        when = time_said(table["when"][1][i], table["form"])
        row["when"] = int(when) if when.isdigit() and not when.startswith("0") else when
        lines.append(json.dumps(row, default=said))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return True


def arrow_columns(table: dict[str, Any]) -> dict[str, pa.Array]:
    (id_type, ids), (x_type, x), (item_type, tags) = table["id"], table["x"], table["tags"]
    id_array = pa.array(ids, SCALARS[id_type][1])
    if table["when"][0] == "date":
        when = pa.array(table["when"][1], pa.date32())
    else:
        unit = pa.timestamp(table["unit"])
        naive = pa.array(table["when"][1], pa.timestamp("us")).cast(unit, safe=False)
        when = naive.cast(pa.int64()).cast(pa.timestamp(table["unit"], table["zone"]))
    return {
        "아이디": id_array,
        "known": id_array,
        "x": pa.array(x, SCALARS[x_type][1]),
        "tags": pa.array(tags, pa.list_(ITEMS[item_type][1])),
        "when": when,
    }


def write_parquet(table: dict[str, Any], path: Path) -> bool:
    found = arrow_columns(table)
    pq.write_table(pa.table({"y": pa.array([1] * len(found["x"])), **found}), path)
    return True


def one_example(table: dict[str, Any], i: int, *, for_graph: bool) -> bytes | None:
    """A row as a tf.Example; None where an Example cannot say it."""
    example = tf.train.Example()

    def put(name: str, value: Any) -> None:
        feature = example.features.feature[name]
        if isinstance(value, bool) or not isinstance(value, int) or for_graph:
            feature.bytes_list.value.append((said(value) or "").encode())
        else:
            feature.int64_list.value.append(value)

    identity, number = table["id"][1][i], table["x"][1][i]
    if said(identity) is None:
        return None
    for name in ("아이디", "known"):
        if identity is not None:
            put(name, identity)
    if number is not None:
        with np.errstate(over="ignore"):
            example.features.feature["x"].float_list.value.append(np.float32(float(number)))
    items = [i for i in table["tags"][1][i] or [] if i is not None]
    if len(items) == 1 and list_said(items) != said(items[0]):
        return None  # a single value is a text, and this text says something else
    for item in items:
        put("tags", item)
    when = time_said(table["when"][1][i], table["form"])
    if when:
        example.features.feature["when"].bytes_list.value.append(when.encode())
    if not for_graph:
        example.features.feature["y"].int64_list.value.append(1)
    return example.SerializeToString()


def write_examples(table: dict[str, Any], path: Path) -> bool:
    records = [one_example(table, i, for_graph=False) for i in range(len(table["id"][1]))]
    if None in records:
        return False
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return True


WRITERS = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "examples": write_examples,
}


def by_file(transform: FeatureTransform, kind: str, form: str, path: Path) -> list[Any]:
    """Each row's encoding as preprocessing and scoring read the file, or `REFUSED`."""
    plan = plan_blocks(schema_of(kind, form), list_inputs([str(path)]))
    (block,) = plan.blocks
    found: list[Any] = []
    for chunk in read_block(block, plan.schema):
        rows: list[Any] = [REFUSED] * chunk.num_rows
        if chunk.table.num_rows:
            encoded = transform.encode_table(chunk.table)
            for place, row in zip(chunk.row, rows_of(encoded), strict=True):
                rows[int(place)] = row
        found += rows
    return found


def rows_of(encoded: dict[str, np.ndarray]) -> Iterator[Any]:
    for i in range(len(encoded["ids"])):
        yield {key: values[i].tobytes() for key, values in sorted(encoded.items())}


def by_client(transform: FeatureTransform, table: dict[str, Any]) -> list[Any]:
    """A caller's typed values, as the client turns them into a request of the exported graph."""
    rules = column_rules(transform.schema.inputs_only())
    rows: list[Any] = []
    for i in range(len(table["id"][1])):
        when = table["when"][1][i]
        values = {
            "아이디": table["id"][1][i],
            "known": table["id"][1][i],
            "tags": table["tags"][1][i],
        }
        try:
            raw = {
                name: convert_column(name, [value], np.dtype(object), rules.get)
                for name, value in {**values, "when": when}.items()
            }
            number = [None if table["x"][1][i] is None else float(table["x"][1][i])]
            with np.errstate(over="ignore"):
                raw["x"] = convert_column("x", number, np.dtype(np.float32))
        except ConfigError:
            rows.append(REFUSED)
            continue
        rows += rows_of(ask(transform, raw))
    return rows


def ask(transform: FeatureTransform, raw: dict[str, Any]) -> dict[str, np.ndarray]:
    schema = transform.schema
    with np.errstate(over="ignore"):
        numbers = np.stack([raw[c] for c in schema.input_numbers], axis=1).astype(np.float32)
    asked = np.stack([np.asarray(raw[c], object) for c in schema.input_texts], axis=1)
    return transform.encode_numpy(numbers, asked)


def by_text_request(transform: FeatureTransform, table: dict[str, Any]) -> list[Any]:
    """Texts as a caller in any language writes them: REST or protobuf strings, straight to the graph."""
    rows: list[Any] = []
    for i in range(len(table["id"][1])):
        cells = [said(table["id"][1][i]), list_said(table["tags"][1][i])]
        if None in cells:
            rows.append(None)
            continue
        number = table["x"][1][i]
        raw: dict[str, Any] = {"아이디": [cells[0].encode()], "known": [cells[0].encode()]}
        raw |= {"tags": [cells[1].encode()], "x": [math.nan if number is None else float(number)]}
        raw["when"] = [time_said(table["when"][1][i], table["form"]).encode()]
        rows += rows_of(ask(transform, raw))
    return rows


def by_serialized(transform: FeatureTransform, table: dict[str, Any]) -> list[Any]:
    """Serialized Examples, as the exported graph parses them; None where they cannot say a row."""
    rows: list[Any] = []
    for i in range(len(table["id"][1])):
        record = one_example(table, i, for_graph=True)
        if record is None:
            rows.append(None)
            continue
        parsed = parse_examples(tf.constant([record]), transform.schema)
        rows += rows_of(ask(transform, {name: value.numpy() for name, value in parsed.items()}))
    return rows


def check(transforms: dict[str, FeatureTransform], folder: Path, table: dict[str, Any]) -> None:
    transform = transforms[table["form"]]
    doors: dict[str, list[Any]] = {}
    for kind, write in WRITERS.items():
        path = folder / f"rows.{kind}"
        if write(table, path):
            doors[kind] = by_file(transform, kind, table["form"], path)
    doors["client"] = by_client(transform, table)
    doors["request"] = by_text_request(transform, table)
    doors["serialized"] = by_serialized(transform, table)
    for i in range(len(table["id"][1])):
        refused = said(table["id"][1][i]) is None
        seen = {door: rows[i] for door, rows in doors.items() if rows[i] is not None}
        values = [row for row in seen.values() if row != REFUSED]
        wrong = {door for door, row in seen.items() if values and row not in (values[0], REFUSED)}
        assert not wrong, f"{wrong} differ from the others in row {i}: {table}"
        for door, row in seen.items():
            assert (row == REFUSED) == refused, f"{door}, row {i}: {table}"


def hostile_table() -> dict[str, Any]:
    """What drawing meets too seldom, in every run."""
    lists = [["a|b"], ["a|b", "c"], [" a", "b"], ["[a]", "[b]"], ["a", None, "NULL"], [], None]
    days = [datetime.datetime(2024, 2, 29, 23, 59, 59, 999_999)] * len(lists)
    return {
        "form": "epoch_ms",
        "unit": "ns",
        "zone": "UTC",
        "id": ("double", [10000000002.0, 2.0**53, -0.0, 1e-7, None, math.nan, 0.5]),
        "x": ("double", [-999.0, 1e300, -0.0, 1e-50, None, math.nan, 0.5]),
        "tags": ("text", lists),
        "when": ("stamp", [*days[:-1], None]),
    }


SETTINGS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SETTINGS
@example(table=hostile_table())
@given(table=columns())
def test_every_door_reads_alike(
    transforms: dict[str, FeatureTransform], tmp_path: Path, table: dict[str, Any]
) -> None:
    check(transforms, tmp_path, table)


@pytest.mark.slow
@settings(SETTINGS, max_examples=10_000)
@given(table=columns())
def test_every_door_reads_ten_thousand_tables_alike(
    transforms: dict[str, FeatureTransform], tmp_path: Path, table: dict[str, Any]
) -> None:
    check(transforms, tmp_path, table)
