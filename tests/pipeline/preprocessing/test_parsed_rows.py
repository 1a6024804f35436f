"""Rows parsed once are the rows of the source: values, places, counts; and read again where they are gone."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.input_listing import list_inputs
from pipeline.preprocessing.parsed_rows import ParsedRows, code_counts, coded_columns
from pipeline.schema import FeatureSchema
from pipeline.sources import Block, plan_blocks, read_block
from pipeline.sources.columns import code_columns, decode_columns

ROWS = b"1,0.5,a,u1\n0,,b,u2\nx,1,c,u3\n0,2,,u1\n1,3,a,\n"  # the third row's label is no number


def make_schema(**changes: Any) -> FeatureSchema:
    raw = {
        "name": "t",
        "source": {"kind": "csv", "header": False, "columns": ["y", "x", "c", "user"]},
        "label": "y",
        "features": [
            {"name": "x", "kind": "numeric"},
            {"name": "c", "kind": "categorical"},
            {"name": "user", "kind": "categorical"},
        ],
    }
    return FeatureSchema.model_validate({**raw, **changes})


@pytest.fixture
def block(tmp_path: Path) -> Block:
    (tmp_path / "log.csv").write_bytes(ROWS)
    (tmp_path / "parsed").mkdir()
    (found,) = plan_blocks(make_schema(), list_inputs([str(tmp_path / "log.csv")])).blocks
    return found


def test_a_column_with_another_role_is_not_coded() -> None:
    cross = {"name": "cu", "kind": "cross", "of": ["c", "user"]}
    assert coded_columns(make_schema()) == ("c", "user")
    assert coded_columns(make_schema(split={"by": "key", "key": "user"})) == ("c",)
    features = [*make_schema().model_dump(exclude_unset=True)["features"], cross]
    assert coded_columns(make_schema(features=features)) == ()


def test_the_encode_pass_gets_the_rows_of_the_source(tmp_path: Path, block: Block) -> None:
    schema, parsed = make_schema(), ParsedRows(str(tmp_path), make_schema())
    (first,) = parsed.parse(block)
    (read,) = read_block(block, schema)
    (kept,) = parsed.chunks(block)
    assert pa.types.is_dictionary(kept.table["c"].type)
    for chunk in (first, kept):
        assert decode_columns(chunk.table).to_pydict()["c"] == [b"a", b"b", b"", b"a"]
        np.testing.assert_equal(decode_columns(chunk.table).to_pydict(), read.table.to_pydict())
        np.testing.assert_array_equal(chunk.row, [0, 1, 3, 4])
        assert chunk.num_rows == 5
    assert [r.raw for r in first.rejects] == [b"x,1,c,u3"]
    parsed.forget(block)
    assert list((tmp_path / "parsed").iterdir()) == []
    (again,) = parsed.chunks(block)
    np.testing.assert_equal(again.table.to_pydict(), read.table.to_pydict())


def test_a_block_of_rejects_alone(tmp_path: Path, block: Block) -> None:
    Path(block.path).write_bytes(b"x,1,c,u3\n")
    block = dataclasses.replace(block, file=list_inputs([block.path]).files[0])
    parsed = ParsedRows(str(tmp_path), make_schema())
    assert [(c.table.num_rows, c.num_rows) for c in parsed.parse(block)] == [(0, 1)]
    assert [(c.table.num_rows, c.num_rows) for c in parsed.chunks(block)] == [(0, 1)]


def test_an_interrupted_pass_leaves_nothing(tmp_path: Path, block: Block) -> None:
    rows = ParsedRows(str(tmp_path), make_schema()).parse(block)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert list((tmp_path / "parsed").iterdir()) == []


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.binary(max_size=2)), kept=st.lists(st.booleans()))
def test_codes_count_as_values_do(values: list[bytes], kept: list[bool]) -> None:
    keep = [*kept, *[True] * len(values)][: len(values)]
    table = code_columns(pa.table({"c": pa.array(values, pa.binary())}), ("c",))
    column = table.filter(pa.array(keep, pa.bool_()))["c"].combine_chunks()
    column = column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
    counted, empty = code_counts(column)
    expected = collections.Counter(v for v, k in zip(values, keep, strict=True) if k)
    assert empty == expected.pop(b"", 0)
    found = dict(zip(*(counted[c].to_pylist() for c in ("value", "count")), strict=True))
    assert found == expected
