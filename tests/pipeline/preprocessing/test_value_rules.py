"""The rules of values through the whole job: times by their type, misfits counted and gated, earlier data."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.show.statistics import statistics_text
from pipeline.errors import DataError
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import DataDirectory
from pipeline.records.dataset import evaluation_batches
from pipeline.schema import FeatureSchema
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.transform.feature_transform import FeatureTransform

ROWS = 400
START = datetime.datetime(2024, 1, 1)
TIMES = [START + datetime.timedelta(minutes=37 * i) for i in range(ROWS)]
SECONDS = [int(t.replace(tzinfo=datetime.UTC).timestamp()) for t in TIMES]


def schema_of(kind: str, features: list[dict[str, Any]], **changes: Any) -> FeatureSchema:
    raw = {"name": "t", "source": {"kind": kind}, "label": "y", "features": features}
    return FeatureSchema.model_validate({**raw, **changes})


def test_a_time_is_one_time_however_it_is_stored(tmp_path: Path) -> None:
    stamps = pa.array(TIMES, pa.timestamp("us"))
    utc = stamps.cast(pa.int64()).cast(pa.timestamp("us", "UTC"))
    columns = {
        "y": pa.array([i % 2 for i in range(ROWS)]),
        "stamp_us": stamps,
        "stamp_ns_utc": utc.cast(pa.timestamp("ns", "UTC")),
        "stamp_s": stamps.cast(pa.timestamp("s")),
        "ms_double": pa.array([s * 1000.0 for s in SECONDS]),
        "ns": pa.array([s * 10**9 for s in SECONDS]),
        "s": pa.array(SECONDS),
        "text": pa.array([t.strftime("%Y-%m-%d %H:%M:%S") for t in TIMES]),
        "day": pa.array([t.date() for t in TIMES]),
    }  # fmt: skip
    formats = {"stamp_us": "%y%m%d%H", "stamp_ns_utc": "epoch_ms", "stamp_s": "iso", "ms_double": "epoch_ms",
               "ns": "epoch_ns", "s": "epoch_s", "text": "iso", "day": "%Y-%m-%d"}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    features = [
        {"name": n, "kind": "datetime", "format": f,
         "parts": ["weekday", "month"] if n == "day" else ["hour", "weekday"]}
        for n, f in formats.items()
    ]  # fmt: skip
    data = preprocess(schema_of("parquet", features), [str(tmp_path / "*")], tmp_path / "d")
    ids = np.concatenate([b["ids"].numpy() for b in evaluation_batches(data, "train", 1000)])
    by_name = {f.name: ids[:, j].tolist() for j, f in enumerate(data.spec.categorical)}
    hours = {tuple(by_name[f"{n}_hour"]) for n in formats if n != "day"}
    weekdays = {tuple(by_name[f"{n}_weekday"]) for n in formats}
    assert (len(hours), len(weekdays)) == (1, 1)
    assert 0 not in next(iter(hours)) + next(iter(weekdays))
    assert set(next(iter(hours))) == set(range(1, 25))
    numbers = FeatureStatistics.load(data.path / "statistics").numbers
    assert {n: s["misfits"] for n, s in numbers["time"].items()} == dict.fromkeys(formats, 0)


def write_times(path: Path, cells: list[str]) -> Path:
    path.write_text("y,t\n" + "".join(f"{i % 2},{c}\n" for i, c in enumerate(cells)))
    return path


@pytest.mark.parametrize(
    "declared, cells, likely",
    [
        ("epoch_ms", list(map(str, SECONDS)), "epoch_s"),
        ("epoch_s", [str(s * 1000) for s in SECONDS], "epoch_ms"),
        ("epoch_ms", [str(s * 10**9) for s in SECONDS], "epoch_ns"),
        ("iso", [t.strftime("%Y-%m-%d") for t in TIMES], "%Y-%m-%d"),
        ("%Y-%m-%d", [t.isoformat() for t in TIMES], "iso"),
    ],
)
def test_a_wrong_format_is_refused_and_the_likely_one_named(
    tmp_path: Path, declared: str, cells: list[str], likely: str
) -> None:
    schema = schema_of("csv", [{"name": "t", "kind": "datetime", "format": declared}])
    path = write_times(tmp_path / "f.csv", cells)
    with pytest.raises(DataError, match=r"'t'.*max_misfit_rate") as caught:
        preprocess(schema, [str(path)], tmp_path / "d")
    assert f"Set `format: {likely}`" in str(caught.value)
    assert not (tmp_path / "d").exists()


def test_a_few_misfits_are_counted_and_shown(tmp_path: Path) -> None:
    cells = [*map(str, SECONDS[: ROWS - 30]), *["never"] * 20, *["NULL"] * 10]
    path = write_times(tmp_path / "f.csv", cells)
    schema = schema_of(
        "csv",
        [{"name": "t", "kind": "datetime", "format": "epoch_s"}],
        split={"validation": 0, "test": 0},
    )
    with pytest.raises(DataError, match=r"20 of 390 \(5\.13%\), 'never' for one"):
        preprocess(schema, [str(path)], tmp_path / "d")
    data = preprocess(schema, [str(path)], tmp_path / "d", PreprocessConfig(max_misfit_rate=0.06))
    numbers = FeatureStatistics.load(data.path / "statistics").numbers
    assert numbers["time"]["t"] == {
        "format": "epoch_s", "present": 370, "missing": 10, "misfits": 20,
        "earliest": "2024-01-01 00:00:00", "latest": TIMES[ROWS - 31].isoformat(" "),
        "misfit_example": "never",
    }  # fmt: skip
    shown = statistics_text(data, numbers)
    assert "datetime" in shown
    assert "never" in shown


def test_the_statistics_call_missing_what_the_model_sees_as_missing(tmp_path: Path) -> None:
    cells = [["", "NA", "\\N", "None", "a", "true"][i % 6] for i in range(ROWS)]
    lists = [["", "NA", "[]", "NA|NULL", "a|b", "[a| 'b|c']"][i % 6] for i in range(ROWS)]
    rows = "".join(f"{i % 2},{c},{s}\n" for i, (c, s) in enumerate(zip(cells, lists, strict=True)))
    (tmp_path / "f.csv").write_text("y,c,s\n" + rows)
    features = [{"name": "c", "kind": "categorical"},
                {"name": "s", "kind": "sequence", "separator": "|", "max_length": 4}]  # fmt: skip
    schema = schema_of("csv", features, split={"validation": 0, "test": 0})
    data = preprocess(schema, [str(tmp_path / "f.csv")], tmp_path / "d")
    statistics = FeatureStatistics.load(data.path / "statistics")
    (batch,) = list(evaluation_batches(data, "train", ROWS))
    for name, ids in (("c", batch["ids"][:, 0]), ("s", batch["sequence/s"][:, 0])):
        assert statistics.numbers["text"][name]["missing"] == int((ids.numpy() == 0).sum())
    found = Counter(batch["ids"].numpy()[:, 0].tolist())
    assert found == {
        0: sum(c not in ("a", "true") for c in cells),
        2: cells.count("a"),
        3: cells.count("true"),
    }
    assert set(statistics.vocabularies["s"].values.to_pylist()) == {b"a", b"b", b"b|c"}


def test_earlier_data_keeps_the_rules_that_it_was_made_with(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(
        "y,c\n" + "".join(f"{i % 2},{'NA' if i % 3 else 'True'}\n" for i in range(60))
    )
    schema = schema_of("csv", [{"name": "c", "kind": "categorical"}])
    new = preprocess(schema, [str(tmp_path / "f.csv")], tmp_path / "new")
    verbatim = schema.model_copy(update={"rules": 1})
    old = preprocess(verbatim, [str(tmp_path / "f.csv")], tmp_path / "old")
    # As an earlier version left it: no mention of rules anywhere.
    summary = json.loads((old.path / "summary.json").read_text())
    del summary["value_rules"], summary["files"]
    (old.path / "summary.json").write_text(json.dumps(summary))
    (old.path / "schema.yaml").write_text(schema.to_yaml())
    old = DataDirectory.open(old.path)
    assert (old.schema.rules, new.schema.rules) == (1, 2)
    assert old.schema.fingerprint() == new.schema.fingerprint()
    texts = np.array([[b"NA"], [b"True"], [b"true"], [b""]], object)
    for data, expected in ((old, [2, 3, 1, 0]), (new, [0, 2, 2, 0])):
        transform = FeatureTransform(data.schema, FeatureStatistics.load(data.path / "statistics"))
        encoded = transform.encode_numpy(np.zeros((4, 0), np.float32), texts)
        assert encoded["ids"][:, 0].tolist() == expected
        assert transform.spec.fingerprint == data.spec.fingerprint
