"""Reading: each row exactly once whatever the blocks, and each bad row a reject with its place."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, DataError
from pipeline.input_listing import list_inputs
from pipeline.schema import FeatureSchema
from pipeline.sources import Reject, plan_blocks, read_block
from pipeline.values import parse_time

CSV = {"kind": "csv", "header": False, "columns": ["y", "x", "c"]}


def make_schema(source: dict[str, Any], **changes: Any) -> FeatureSchema:
    raw = {
        "name": "t",
        "source": source,
        "label": "y",
        "features": [{"name": "x", "kind": "numeric"}, {"name": "c", "kind": "categorical"}],
    }
    return FeatureSchema.model_validate({**raw, **changes})


def read(
    schema: FeatureSchema,
    paths: Path | Sequence[Path],
    block_bytes: int = 8 << 20,
    chunk_bytes: int | None = None,
) -> tuple[dict[str, list[Any]], list[Reject], int]:
    """(columns of the good rows, rejects, input rows); checks the row positions on the way."""
    patterns = [str(p) for p in ([paths] if isinstance(paths, Path) else paths)]
    plan = plan_blocks(schema, list_inputs(patterns), block_bytes=block_bytes)
    tables, rejects, rows = [], [], 0
    for block in plan.blocks:
        expected = 0
        for chunk in read_block(block, plan.schema, chunk_bytes=chunk_bytes):
            assert chunk.num_rows == chunk.table.num_rows + sum(r.rows for r in chunk.rejects)
            assert len(chunk.row) == chunk.table.num_rows
            assert (np.diff(chunk.row) > 0).all()
            assert ((chunk.row >= expected) & (chunk.row < expected + chunk.num_rows)).all()
            expected += chunk.num_rows
            rows += chunk.num_rows
            tables.append(chunk.table)
            rejects += chunk.rejects
    assert [b.index for b in plan.blocks] == list(range(len(plan.blocks)))
    columns = pa.concat_tables(tables).to_pydict() if tables else {}
    return columns, rejects, rows


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# ------------------------------------------------------------------------------------- splitting

ROWS = "0,1,a\n1,2,bb\r\n\n0,,\n\r\n1,4,dddd\n0,5,e"


@pytest.mark.parametrize("quote", ['"', None])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_every_block_size_gives_every_row_once(tmp_path: Path, end: str, quote: str | None) -> None:
    path = write(tmp_path / "rows.csv", ROWS + end)
    schema = make_schema({**CSV, "quote": quote})
    sizes = range(1, len(ROWS) + 5)
    for block_bytes, chunk_bytes in [(n, None) for n in sizes] + [(100, n) for n in sizes]:
        columns, rejects, rows = read(schema, path, block_bytes, chunk_bytes)
        assert columns["c"] == [b"a", b"bb", b"", b"dddd", b"e"], (block_bytes, chunk_bytes)
        assert np.nan_to_num(columns["x"], nan=-1).tolist() == [1, 2, -1, 4, 5]
        assert (rejects, rows) == ([], 5)


@settings(max_examples=80, deadline=None)
@given(
    cells=st.lists(st.text("ab ,\"'é\t", max_size=6), max_size=12),
    breaks=st.lists(st.sampled_from(["\n", "\r\n", "\n\n"]), min_size=12, max_size=12),
    block_bytes=st.integers(1, 60),
    chunk_bytes=st.none() | st.integers(1, 60),
    header=st.booleans(),
    bom=st.booleans(),
)
def test_any_text_in_any_blocks(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[str],
    breaks: list[str],
    block_bytes: int,
    chunk_bytes: int | None,
    header: bool,
    bom: bool,
) -> None:
    lines = ["1,{},\"{}\"{}".format(i, c.replace('"', '""'), b) for i, (c, b) in
             enumerate(zip(cells, breaks, strict=False))]  # fmt: skip
    data = ("\ufeff" if bom else "") + ("y,x,c\n" if header else "") + "".join(lines)
    path = write(tmp_path_factory.mktemp("any") / "f.csv", data + ("" if lines else "\n"))
    schema = make_schema({"kind": "csv"} if header else CSV)
    columns, rejects, rows = read(schema, path, block_bytes, chunk_bytes)
    assert rejects == []
    assert rows == len(lines)
    assert columns.get("x", []) == list(range(len(lines)))
    assert columns.get("c", []) == [c.encode() for c in cells[: len(lines)]]


def test_header_decides_the_columns_and_other_columns_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", '\ufeff"z, z",c,x,y,u\n9,"a, b",1.5,1,nonsense\n')
    columns, rejects, _ = read(make_schema({"kind": "csv"}), path)
    assert columns == {"x": [1.5], "c": [b"a, b"], "y": [1.0]}
    assert rejects == []


def test_header_without_rows_has_no_blocks(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "y,x,c\n")
    assert plan_blocks(make_schema({"kind": "csv"}), list_inputs([str(path)])).blocks == ()


def test_numbers_missing_values_and_null_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "1,-,-\n0, 2.5 ,x\n1,1e400,y\n0,nan,NA\n")
    columns, rejects, _ = read(make_schema({**CSV, "null_values": ["-"]}), path)
    assert repr(columns["x"]) == "[nan, 2.5, inf, nan]"
    assert columns["c"] == [b"", b"x", b"y", b""]
    assert rejects == []


def test_quoted_line_breaks(tmp_path: Path) -> None:
    data = '1,1,"a\nb"\n0,2,"c\r\n""d"""\n1,3,e'
    path = write(tmp_path / "f.csv", data)
    schema = make_schema({**CSV, "newlines_in_values": True})
    columns, rejects, rows = read(schema, path, block_bytes=3)
    assert columns["c"] == [b"a\nb", b'c\r\n"d"', b"e"]
    assert (rejects, rows) == ([], 3)
    assert len(plan_blocks(schema, list_inputs([str(path)]), block_bytes=3).blocks) == 1


def test_gzip_is_told_by_its_bytes_and_may_have_members(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", gzip.compress(b"y,x,c\n1,1,a\n0,2") + gzip.compress(b",b\n"))
    columns, rejects, _ = read(make_schema({"kind": "csv"}), path, block_bytes=2)
    assert columns["c"] == [b"a", b"b"]
    assert rejects == []


def test_a_stream_longer_than_its_buffer(tmp_path: Path) -> None:
    count = 900_000
    text = b"".join(b"1,%d,%d\n" % (i, i % 7) for i in range(count))
    assert len(text) > 8 << 20
    path = write(tmp_path / "f.csv.gz", gzip.compress(text, 1))
    columns, _, rows = read(make_schema(CSV), path)
    assert rows == count
    assert columns["x"] == list(range(count))


@pytest.mark.parametrize(
    "source, text",
    [
        ({"delimiter": "::"}, "y::x::c\n1::1.5::a:b\n0::2::\n"),
        ({"delimiter": ";", "decimal": ","}, "y;x;c\n1;1,5;a:b\n0;2;\n"),
        ({"delimiter": ";", "decimal": ",", "thousands": "."}, "y;x;c\n1;1,5;a:b\n0; 2 ;\n"),
        ({"delimiter": "\t"}, "y\tx\tc\nTrue\t1.5\ta:b\nFALSE\t2\t\n"),
    ],
)
def test_formats_that_people_have(tmp_path: Path, source: dict[str, Any], text: str) -> None:
    schema = make_schema({"kind": "csv", **source})
    columns, rejects, _ = read(schema, write(tmp_path / "f.csv", text))
    assert columns == {"x": [1.5, 2.0], "c": [b"a:b", b""], "y": [1.0, 0.0]}
    assert rejects == []


def test_grouped_digits_are_read_by_threes_or_refused(tmp_path: Path) -> None:
    cells = ["1.234.567,25", "-12.345", "1234,5", "1.5", "1.23.456", "1,234,5", "12.3456", ""]
    rows = "".join(f"1;{cell};c\n" for cell in cells)
    source = {"kind": "csv", "delimiter": ";", "decimal": ",", "thousands": "."}
    columns, rejects, _ = read(make_schema(source), write(tmp_path / "f.csv", "y;x;c\n" + rows))
    assert repr(columns["x"]) == "[1234567.25, -12345.0, 1234.5, nan]"
    assert [r.reason for r in rejects] == [f"x must be a number: got {c!r}" for c in cells[3:7]]
    plain = {"kind": "csv", "delimiter": ";", "decimal": ","}
    _, rejects, _ = read(make_schema(plain), write(tmp_path / "g.csv", "y;x;c\n1;1.5;c\n1;1,5;c\n"))
    assert [r.raw for r in rejects] == [b"1;1.5;c"]


def test_fields_of_records_are_columns(tmp_path: Path) -> None:
    rows = [{"y": 1, "x": 1.5, "device": {"os": "ios", "app": {"id": 7}}}, {"y": 0, "x": 2.0}]
    features = [
        {"name": "x", "kind": "numeric"},
        {"name": "os", "column": "device.os", "kind": "categorical"},
        {"name": "app", "column": "device.app.id", "kind": "categorical"},
    ]
    expected = {
        "x": [1.5, 2.0],
        "device.os": [b"ios", b""],
        "device.app.id": [b"7", b""],
        "y": [1, 0],
    }
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    write(tmp_path / "f.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    for kind in ("parquet", "jsonl"):
        schema = make_schema({"kind": kind}, features=features)
        columns, rejects, _ = read(schema, tmp_path / f"f.{kind}")
        assert (columns, rejects) == (expected, []), kind
    whole = make_schema({"kind": "parquet"}, features=[{"name": "device", "kind": "categorical"}])
    with pytest.raises(ConfigError, match=r"missing: device.*Did you mean 'device\.os'"):
        read(whole, tmp_path / "f.parquet")
    text = make_schema({"kind": "jsonl"}, features=features[:2])
    write(tmp_path / "t.jsonl", '{"y": 1, "device": {"os": "a"}}\n{"y": 1, "device.os": "b"}\n')
    assert read(text, tmp_path / "t.jsonl")[0]["device.os"] == [b"a", b"b"]


def test_a_column_has_its_own_null_markers(tmp_path: Path) -> None:
    features = [
        {"name": "x", "kind": "numeric", "missing": ["", -1, "?"]},
        {"name": "z", "kind": "numeric"},
        {"name": "c", "kind": "categorical", "missing": [""]},
        {"name": "d", "kind": "categorical"},
    ]
    text = "y,x,z,c,d\n1,-1,-1,NA,NA\n0,?,NA,-1,-1\n1,-1.0,3,None,none\n0,2,?,a,a\n"
    schema = make_schema({"kind": "csv"}, features=features)
    columns, rejects, _ = read(schema, write(tmp_path / "f.csv", text))
    assert repr(columns["x"]) == "[nan, nan, nan]"
    assert repr(columns["z"]) == "[-1.0, nan, 3.0]"
    assert columns["c"] == [b"NA", b"-1", b"None"]
    assert columns["d"] == [b"", b"-1", b"none"]
    assert [r.reason for r in rejects] == ["z must be a number: got '?'"]


# ------------------------------------------------------------------------------------- rejects

GOOD = [b"1,%d,g%d" % (i, i) for i in range(600)]
LONG = b"1,1," + b"z" * (10 << 20)
BAD_LINES = [
    pytest.param(b"1,2", "every row must have 3 columns: this one has 2", id="too few"),
    pytest.param(b"1,2,3,4", "every row must have 3 columns: this one has 4", id="too many"),
    pytest.param(b"1,2,\xff\xfe", "not UTF-8: byte 0xff at 4", id="utf8"),
    pytest.param(b"1,abc,c", "x must be a number: got 'abc'", id="number"),
    pytest.param(b"2,1,c", "label y is neither 0 nor 1", id="label 2"),
    pytest.param(b"0.5,1,c", "label y is neither 0 nor 1", id="label 0.5"),
    pytest.param(b",1,c", "label y is missing", id="label missing"),
    pytest.param(b"1,2,a\0b", "NUL byte: at byte 5", id="nul"),
    pytest.param(LONG, f"line longer than 1048576 bytes: {len(LONG)}", id="long"),
    pytest.param(b'1,2,"open', "unbalanced quote", id="quote"),
    pytest.param(b"1,2,a\rb", "carriage return inside a line", id="carriage return"),
]


@pytest.mark.parametrize("place", [0, 300, 600])
@pytest.mark.parametrize("bad, reason", BAD_LINES)
def test_a_bad_line_is_rejected_alone(tmp_path: Path, bad: bytes, reason: str, place: int) -> None:
    lines = [*GOOD[:place], bad, *GOOD[place:]]
    path = write(tmp_path / "f.csv", b"\n".join(lines) + b"\n")
    columns, rejects, rows = read(make_schema(CSV), path, block_bytes=4 << 20)
    assert rejects == [Reject(str(path), sum(len(g) + 1 for g in GOOD[:place]), reason, bad)]
    assert rows == 601
    assert columns["c"] == [g.split(b",")[2] for g in GOOD]


def test_many_bad_lines_each_stand_alone(tmp_path: Path) -> None:
    lines = list(GOOD[:40])
    bad = {3: b'1,2,"x', 4: b'1,2,y"z"', 9: b"1", 10: b'0,"1,q', 25: b"\xc3(,1,1", 39: b"7,1,1"}
    for i, line in bad.items():
        lines[i] = line
    path = write(tmp_path / "f.csv", b"\r\n".join(lines))
    columns, rejects, rows = read(make_schema(CSV), path)
    rejected = {r.raw for r in rejects}
    assert rejected == {bad[i] for i in (3, 9, 10, 25, 39)}  # y"z" is a legal, unquoted text
    for reject in rejects:
        assert path.read_bytes()[reject.offset :].startswith(reject.raw)
    assert rows == 40
    assert len(columns["c"]) == 35


def test_unbalanced_quotes_are_data_without_a_quote_character(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", '1,1,"a\n0,2,b"\n')
    columns, rejects, _ = read(make_schema({**CSV, "quote": None}), path)
    assert columns["c"] == [b'"a', b'b"']
    assert rejects == []


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=12), max_size=20),
    block_bytes=st.integers(1, 90),
    chunk_bytes=st.none() | st.integers(1, 30),
)
def test_hostile_bytes_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    block_bytes: int,
    chunk_bytes: int | None,
) -> None:
    data = b"\n".join([*lines, b"1,1,last"])
    assume(not data.startswith((b"\x1f\x8b", b"\xff\xfe", b"\xfe\xff")))  # gzip, UTF-16
    path = write(tmp_path_factory.mktemp("hostile") / "f.csv", data)
    columns, rejects, rows = read(make_schema(CSV), path, block_bytes, chunk_bytes)
    body = data.removeprefix(b"\xef\xbb\xbf")
    assert rows == sum(line not in (b"", b"\r") for line in body.split(b"\n"))
    assert len(columns["c"]) + len(rejects) == rows
    assert columns["c"][-1] == b"last"


def test_rejects_are_json_with_bytes_kept() -> None:
    assert Reject("f", 3, "r: s", b"ab").to_json() == {
        "file": "f", "offset": 3, "reason": "r: s", "raw": "ab",
    }  # fmt: skip
    entry = json.loads(json.dumps(Reject("f", 3, "r", b"\xff", rows=4).to_json()))
    assert (entry["raw_base64"], entry["rows"]) == ("/w==", 4)
    assert Reject("f", 3, "x must be a number: got 'a: b'").kind == "x must be a number"


WEIGHTED = {"label": {"clicks": "n", "impressions": "m"}, "weight": "w"}


@pytest.mark.parametrize(
    "row, reason",
    [
        ("1,2,1,1,a", None),
        ("0,5,0,1,a", None),
        ("3,2,1,1,a", "clicks must lie between 0 and impressions"),
        ("-1,2,1,1,a", "clicks must lie between 0 and impressions"),
        (",2,1,1,a", "clicks or impressions are missing"),
        ("0,0,1,1,a", "impressions must be above 0"),
        ("1,inf,1,1,a", "impressions must be finite"),
        ("1,2,-1,1,a", "weight w is negative or missing"),
        ("1,2,,1,a", "weight w is negative or missing"),
        ("1,2,inf,1,a", "weight w is negative or missing"),
    ],
)
def test_counted_clicks_and_weights(tmp_path: Path, row: str, reason: str | None) -> None:
    path = write(tmp_path / "f.csv", f"n,m,w,x,c\n{row}\n")
    _, rejects, rows = read(make_schema({"kind": "csv"}, **WEIGHTED), path)
    assert rows == 1
    assert [r.reason for r in rejects] == ([reason] if reason else [])


@pytest.mark.parametrize(
    "split, rows, bad",
    [
        ({"by": "time"}, ["2014-10-21 00:00:00", "2014-10-21", "2014-02-30 00:00:00"], [1, 2]),
        ({"by": "column", "column": "t"}, ["train", "test", "Test", "", "validation"], [2, 3]),
    ],
)
def test_time_and_split_columns_must_be_usable(
    tmp_path: Path, split: dict[str, str], rows: list[str], bad: list[int]
) -> None:
    path = write(tmp_path / "f.csv", "y,x,c,t\n" + "".join(f"1,1,a,{t}\n" for t in rows))
    schema = make_schema({"kind": "csv"}, split=split, time={"column": "t"})
    columns, rejects, _ = read(schema, path)
    assert columns["t"] == [t.encode() for i, t in enumerate(rows) if i not in bad]
    assert [r.raw.decode() for r in rejects] == [f"1,1,a,{rows[i]}" for i in bad]


# ------------------------------------------------------------------------------------- JSON Lines


def test_json_lines_absent_keys_and_numbers_for_text(tmp_path: Path) -> None:
    lines = [
        '{"y": 1, "x": 2, "c": "a"}',
        '{"y": 0}',
        '{"y": true, "x": "2.5", "c": 007}'.replace("007", "7"),
        '{"y": 0, "x": null, "c": 1.50, "other": {"deep": [1]}}',
        '{"y": 1, "x": 1e3, "c": ["p", 3, null]}',
        '{"y": 0, "c": "2014-10-21"}',
        '{"y": 0, "c": false}',
    ]
    path = write(tmp_path / "f.jsonl", "\ufeff" + "\n".join(lines))
    for block_bytes in (1, 40, 10_000):
        columns, rejects, _ = read(make_schema({"kind": "jsonl"}), path, block_bytes)
        assert rejects == []
        assert columns["c"] == [b"a", b"", b"7", b"1.5", b"p,3", b"2014-10-21", b"false"]
        assert columns["y"] == [1, 0, 1, 0, 1, 0, 0]
        assert repr(columns["x"]) == "[2.0, nan, 2.5, nan, 1000.0, nan, nan]"


@pytest.mark.parametrize(
    "bad, reason",
    [
        ('{"y": 1', "not JSON: Expecting ',' delimiter: line 1 column 8 (char 7)"),
        ("   ", "not JSON: Expecting value: line 1 column 4 (char 3)"),
        ('{"y": 1}{"y": 0}', "not JSON: Extra data: line 1 column 9 (char 8)"),
        ("[1]", "every line must be one JSON object: got [1]"),
        ('{"y": 1, "x": "a"}', "x must be a number: got 'a'"),
        ('{"y": 1, "c": {"a": "b"}}', "c must be text, a number or a list of them"),
        ('{"y": 1, "c": "\\ud800"}', "'utf-8' codec can't encode character"),
        ('{"y": null}', "label y is missing"),
    ],
)
def test_bad_json_lines(tmp_path: Path, bad: str, reason: str) -> None:
    good = '{"y": 1, "x": 1, "c": "a"}'
    path = write(tmp_path / "f.jsonl", "\n".join([good, bad, good]))
    columns, rejects, rows = read(make_schema({"kind": "jsonl"}), path)
    assert (len(columns["c"]), rows) == (2, 3)
    (reject,) = rejects
    assert reject.reason.startswith(reason)
    assert (reject.offset, reject.raw.decode()) == (len(good) + 1, bad)


# ------------------------------------------------------------------------------------- Parquet


def test_parquet_row_groups_and_column_types(tmp_path: Path) -> None:
    at = datetime.datetime(2014, 10, 21, 0, 59, 59)
    table = pa.table(
        {
            "y": pa.array([True, False, None, True]),
            "x": pa.array(["1.5", "", None, "4"]),
            "w": pa.array([1, 2, 3, 4], pa.decimal128(5, 1)),
            "dictionary": pa.array(["a", None, "a", "b"]).dictionary_encode(),
            "int": pa.array([1, -2, None, 4], pa.int64()),
            "bool": pa.array([True, None, False, True]),
            "ints": pa.array([[1, 2], [], None, [3, None, 4]], pa.list_(pa.int32())),
            "texts": pa.array([["a"], ["b", "c"], None, [None]], pa.large_list(pa.string())),
            "stamp": pa.array([at, None, at, at], pa.timestamp("us")),
            "date": pa.array([at.date(), None, at.date(), at.date()], pa.date32()),
            "large": pa.array(["é", "b", None, "d"], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "f.parquet", row_group_size=2)
    features: list[dict[str, Any]] = [{"name": "x", "kind": "numeric"}]
    for name in table.column_names[3:]:
        kind = {"kind": "sequence", "separator": "|"} if name == "ints" else {"kind": "categorical"}
        features.append({"name": name, **kind})
    schema = make_schema({"kind": "parquet"}, features=features, weight="w")
    plan = plan_blocks(schema, list_inputs([str(tmp_path / "f.parquet")]))
    assert [(b.start, b.end) for b in plan.blocks] == [(0, 1), (1, 2)]
    columns, rejects, rows = read(schema, tmp_path / "f.parquet")
    assert rows == 4
    assert [(r.offset, r.reason) for r in rejects] == [(2, "label y is missing")]
    assert columns["y"] == [1, 0, 1]
    assert columns["w"] == [1, 2, 4]
    assert repr(columns["x"]) == "[1.5, nan, 4.0]"
    assert columns["dictionary"] == [b"a", b"", b"b"]
    assert columns["int"] == [b"1", b"-2", b"4"]
    assert columns["bool"] == [b"true", b"", b"true"]
    assert columns["ints"] == [b"1|2", b"", b"3|4"]
    assert columns["texts"] == [b"a", b"b,c", b""]
    assert [s[:19] for s in columns["stamp"]] == [
        b"2014-10-21 00:59:59",
        b"",
        b"2014-10-21 00:59:59",
    ]
    assert columns["date"] == [b"2014-10-21", b"", b"2014-10-21"]
    assert columns["large"] == ["é".encode(), b"b", b"d"]


def test_bad_values_in_parquet_are_rejected_alone(tmp_path: Path) -> None:
    table = pa.table(
        {
            "y": [1, 0, 1, 2, 0],
            "x": ["1", "two", "3", "4", "5"],
            "c": pa.array([b"a", b"b", b"\xff", b"d", b"e"], pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "f.parquet", row_group_size=3)
    columns, rejects, rows = read(make_schema({"kind": "parquet"}), tmp_path / "f.parquet")
    assert rows == 5
    assert columns["c"] == [b"a", b"e"]
    found = {r.offset: r.reason for r in rejects}
    assert found[1].startswith("x must be a number: ")
    assert "two" in found[1]
    assert found[2] == "c is not UTF-8"
    assert found[3] == "label y is neither 0 nor 1"
    assert len(found) == 3


def test_a_corrupt_row_group_is_one_reject_with_its_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({"y": np.ones(300), "x": rng.random(300), "c": [f"v{i}" for i in range(300)]})
    path = tmp_path / "f.parquet"
    pq.write_table(table, path, row_group_size=100, write_page_checksum=True)
    group = pq.ParquetFile(path).metadata.row_group(1)
    data = bytearray(path.read_bytes())
    column = group.column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    middle = start + column.total_compressed_size // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(bytes(data))
    columns, rejects, rows = read(make_schema({"kind": "parquet"}), path)
    (reject,) = rejects
    assert (reject.offset, reject.rows, rows) == (100, 100, 300)
    assert reject.reason.startswith("row group 1 cannot be read: ")
    assert columns["c"] == [f"v{i}".encode() for i in (*range(100), *range(200, 300))]


# ------------------------------------------------------------------------------------- tf.Example


def example(**features: Any) -> bytes:
    import tensorflow as tf

    made = tf.train.Example()
    for name, values in features.items():
        for value in values:
            feature = made.features.feature[name]
            if isinstance(value, bytes):
                feature.bytes_list.value.append(value)
            elif isinstance(value, int):
                feature.int64_list.value.append(value)
            else:
                feature.float_list.value.append(value)
    return made.SerializeToString()


def write_records(path: Path, records: list[bytes]) -> Path:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def test_examples(tmp_path: Path) -> None:
    bad = [
        (b"\xff\xff\xff", "not a tf.Example: "),
        (example(y=[1], x=[b"abc"]), "x must be a number: got 'abc'"),
        (example(y=[1], x=[1, 2]), "x must be one number: got 2 values"),
        (example(y=[1], c=[b"\xff"]), "c is not UTF-8"),
        (example(x=[1]), "label y is missing"),
    ]
    good = [
        example(y=[1], x=[2.5], c=[b"a"]),
        example(y=[0]),
        example(y=[b"1"], x=[b"7"], c=[5]),
        example(y=[1.0], c=[b"p", b"q"]),
    ]
    records = [good[0], *(b for b, _ in bad), *good[1:]]
    path = write_records(tmp_path / "f.tfrecord", records)
    columns, rejects, rows = read(make_schema({"kind": "examples"}), path)
    assert rows == 9
    assert columns["c"] == [b"a", b"", b"5", b"p,q"]
    assert repr(columns["x"]) == "[2.5, nan, 7.0, nan]"
    assert columns["y"] == [1, 0, 1, 1]
    for i, (_, reason) in enumerate(bad):
        (reject,) = [r for r in rejects if r.offset == i + 1]
        assert reject.reason.startswith(reason)


def test_images_in_examples_are_bytes_and_damaged_ones_rejects(tmp_path: Path) -> None:
    import tensorflow as tf

    png = tf.io.encode_png(np.zeros((2, 2, 1), np.uint8)).numpy()
    records = [example(y=[1], p=[png]), example(y=[1], p=[png[:30]]), example(y=[0])]
    path = write_records(tmp_path / "f.tfrecord", records)
    schema = make_schema({"kind": "examples"}, features=[{"name": "p", "kind": "image"}])
    columns, rejects, _ = read(schema, path)
    assert columns["p"] == [png, b""]
    assert [(r.offset, r.reason) for r in rejects] == [(1, "image p cannot be decoded")]


def test_image_paths_become_bytes(tmp_path: Path) -> None:
    import tensorflow as tf

    png = tf.io.encode_png(np.zeros((2, 2, 1), np.uint8)).numpy()
    here = write(tmp_path / "a.png", png)
    rows = [str(here), "", str(tmp_path / "none.png"), str(here)]
    path = write(tmp_path / "f.csv", "y,p\n" + "".join(f"1,{r}\n" for r in rows))
    feature = {"name": "p", "kind": "image", "is_path": True}
    columns, rejects, _ = read(make_schema({"kind": "csv"}, features=[feature]), path)
    assert columns["p"] == [png, b"", png]
    assert [r.reason for r in rejects] == ["image p cannot be read: FileNotFoundError"]
    assert rejects[0].raw == f"1,{rows[2]}".encode()


# ------------------------------------------------------------------------------------- whole files


def test_files_that_cannot_be_read_to_their_end(tmp_path: Path) -> None:
    text = gzip.compress(b"".join(b"1,%d,%d\n" % (i, i) for i in range(5000)))
    path = write(tmp_path / "f.csv.gz", text[: len(text) // 2])
    with pytest.raises(DataError, match=r"f\.csv\.gz must be a whole gzip file; got EOFError"):
        read(make_schema(CSV), path)
    path = write_records(tmp_path / "f.tfrecord", [example(y=[1], c=[b"x" * 50])] * 3)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"f\.tfrecord must be a whole TFRecord file"):
        read(make_schema({"kind": "examples"}), path)


@pytest.mark.parametrize(
    "source, data",
    [
        ({"kind": "parquet"}, b"1,2,3\n"),
        ({"kind": "examples"}, b"1,2,3,4,5,6,7,8,9,10,11,12\n"),
        ({"kind": "csv"}, b"\xff\xfe,x,c\n1,2,3\n"),
        ({"kind": "csv"}, gzip.compress(b"y,x,c\n1,2,3\n", mtime=0)[:8]),
        (CSV, b""),
    ],
)
def test_files_of_another_format_are_bad_data(
    tmp_path: Path, source: dict[str, Any], data: bytes
) -> None:
    with pytest.raises(DataError) as caught:
        read(make_schema(source), write(tmp_path / "f", data))
    assert caught.value.exit_code == 4
    assert "f" in str(caught.value)


def test_files_are_sorted_and_must_agree(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.csv", f"y,x,c\n1,1,{n}\n") for n in "ba"]
    columns, _, _ = read(make_schema({"kind": "csv"}), paths)
    assert columns["c"] == [b"a", b"b"]
    columns, _, _ = read(make_schema({"kind": "csv"}), [tmp_path / "*.csv", paths[0]])
    assert columns["c"] == [b"a", b"b"]
    write(tmp_path / "c.csv", "y,x\n1,1\n")
    with pytest.raises(ConfigError, match=r"c\.csv: every column .* missing: c"):
        read(make_schema({"kind": "csv"}), tmp_path / "*.csv")
    features = [{"name": "x*", "kind": "numeric"}]
    write(tmp_path / "c.csv", "y,x1\n1,1\n")
    with pytest.raises(ConfigError, match=r"same columns; got .*c.csv differs"):
        read(make_schema({"kind": "csv"}, features=features), tmp_path / "*.csv")


def test_inputs_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must match at least one file"):
        read(make_schema(CSV), tmp_path / "none*.csv")
    with pytest.raises(ConfigError, match="must match at least one file; got '/"):
        read(make_schema(CSV), tmp_path)


# ------------------------------------------------------------------------------------- time


@settings(max_examples=100, deadline=None)
@given(
    at=st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2068, 12, 31)),
    form=st.sampled_from(["iso", "epoch_s", "epoch_ms", "%Y-%m-%d %H:%M", "%y%m%d%H", "%d/%m/%Y"]),
)
def test_parse_time_equals_pythons(at: datetime.datetime, form: str) -> None:
    utc = at.replace(tzinfo=datetime.UTC)
    seconds = int(utc.timestamp() // 1)
    if form == "iso":
        text, kept = at.isoformat(" "), seconds
    elif form.startswith("epoch"):
        text, kept = str(seconds * (1000 if form == "epoch_ms" else 1)), seconds
    else:
        text = at.strftime(form)
        parsed = datetime.datetime.strptime(text, form).replace(tzinfo=datetime.UTC)
        kept = int(parsed.timestamp())
    values = pa.array([text.encode(), b"", b"x" + text.encode(), b" " + text.encode()])
    assert parse_time(values, form).to_pylist() == [kept, None, None, None]


@pytest.mark.parametrize(
    "text",
    ["2014-02-30 00:00:00", "2014-13-01 00:00:00", "2014-10-21 24:00:00", "2014-10-21  0:00:00"],
)
def test_times_that_do_not_exist(text: str) -> None:
    assert parse_time(pa.array([text.encode()]), "iso").to_pylist() == [None]
