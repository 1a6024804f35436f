"""A log of 119 columns as a user meets it: infer a schema, read it, preprocess with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.records.data_directory import DataDirectory
from pipeline.schema import FeatureSchema
from tests.jobs.conftest import Outcome

Cli = Callable[..., Outcome]
ROWS = 3000
FAMILIES = {"feat_a": 18, "feat_b": 6, "feat_c": 8, "feat_d": 6, "feat_e": 10}
HISTORIES = {"history_a": 7, "history_b": 30}


@pytest.fixture(scope="module")
def toss_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names, types and missing values as in the Toss NEXT ML challenge's train.parquet."""
    rng = np.random.default_rng(11)
    rare = rng.random(ROWS) < 0.02
    columns: dict[str, pa.Array] = {
        "gender": pa.array(rng.integers(1, 3, ROWS).astype(float), mask=rare),
        "age_group": pa.array(rng.integers(1, 9, ROWS).astype(float), mask=rare),
        "inventory_id": pa.array([str(n) for n in rng.integers(1, 19, ROWS)]),
        "day_of_week": pa.array([str(n) for n in rng.integers(1, 8, ROWS)]),
        "hour": pa.array([f"{n:02d}" for n in rng.integers(0, 24, ROWS)]),
        "seq": pa.array(
            [
                ",".join(str(n) for n in rng.integers(1, 600, rng.integers(1, 120)))
                for _ in range(ROWS)
            ]
        ),
    }
    for i in range(1, 28):
        columns[f"l_feat_{i}"] = pa.array(rng.integers(0, 2 + i, ROWS).astype(float), mask=rare)
    for name, size in (FAMILIES | HISTORIES).items():
        for i in range(1, size + 1):
            columns[f"{name}_{i}"] = pa.array(rng.lognormal(0, 1, ROWS).round(4), mask=rare)
    columns["clicked"] = pa.array((rng.random(ROWS) < 0.0191).astype(int))
    assert len(columns) == 119
    path = tmp_path_factory.mktemp("toss") / "train.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=1000)
    return path


def test_infer_read_and_preprocess(cli: Cli, toss_log: Path, tmp_path: Path) -> None:
    out = tmp_path / "toss.yaml"
    told = cli("schema", "infer", toss_log, "--out", out)
    assert told.code == 0, told.err
    text = out.read_text()
    assert "label: clicked" in text
    for family, size in (FAMILIES | HISTORIES).items():
        assert f"{family}_{{1..{size}}}" in text, text
    assert "l_feat_{1..27}" in text or "l_feat_*" in text, text
    assert text.count("\n") < 30, text
    schema = FeatureSchema.load(out)
    kinds = {f.name: f.kind for f in schema.features}
    assert len(kinds) == 118
    assert kinds["seq"] == "sequence"
    assert {kinds[n] for n in ("gender", "age_group", "inventory_id", "hour")} == {"categorical"}
    assert len({kinds[f"l_feat_{i}"] for i in range(1, 28)}) == 1, "a family agrees"
    assert {k for n, k in kinds.items() if n.startswith(("feat_", "history_"))} == {"numeric"}
    made = cli(
        "preprocess", "--schema", out, "--input", toss_log, "--out", tmp_path / "a", "--json"
    )
    assert made.result["input_rows"] == made.result["sum_of_parts"] == ROWS
    assert made.result["rejected_rows"] == 0


def test_the_preset_takes_the_same_columns_by_its_patterns(
    cli: Cli, toss_log: Path, tmp_path: Path
) -> None:
    cli("preprocess", "--schema", "toss", "--input", toss_log, "--out", tmp_path / "d", "--json")
    data = DataDirectory.open(tmp_path / "d")
    assert data.summary["input_rows"] == data.summary["sum_of_parts"] == ROWS
    assert len(data.schema.features) == 118
    assert len(data.spec.numeric) == 2 * sum((FAMILIES | HISTORIES).values())  # and was it missing?
    shown = cli("stats", tmp_path / "d").out
    assert "history_b_30" in shown
    assert "l_feat_27" in shown


def test_facets_and_tfdv_can_read_its_statistics(cli: Cli, toss_log: Path, tmp_path: Path) -> None:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    cli("preprocess", "--schema", "toss", "--input", toss_log, "--out", tmp_path / "d", "--json")
    proto = statistics_pb2.DatasetFeatureStatisticsList()
    proto.ParseFromString((tmp_path / "d" / "statistics" / "statistics.pb").read_bytes())
    (dataset,) = proto.datasets
    data = DataDirectory.open(tmp_path / "d")
    assert dataset.num_examples == data.num_rows("train")
    found = {f.path.step[0] if f.path.step else f.name: f for f in dataset.features}
    assert {"gender", "seq", "feat_a_1", "history_b_30"} <= set(found)
    numbers = found["feat_a_1"].num_stats
    assert numbers.min > 0
    assert numbers.common_stats.num_missing > 0
