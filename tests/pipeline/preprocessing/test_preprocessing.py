"""The whole job: every row in one place, the same bytes however it runs, nothing half-written."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ClickparityError, ConfigError, DataError
from pipeline.preprocessing import job as preprocessing
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import SPLITS, DataDirectory
from pipeline.records.packed import RowLayout, read_packed
from pipeline.schema import FeatureSchema
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.step_directory import step_directory

ROWS, BAD = 3000, 7
CONFIG = PreprocessConfig(block_bytes=8192, shard_bytes=1 << 14, rows_per_record=64, seed=4)


def make_schema(**changes: Any) -> FeatureSchema:
    raw: dict[str, Any] = {
        "name": "t",
        "source": {"kind": "csv"},
        "label": "y",
        "features": [
            {"name": "x", "kind": "numeric", "log1p": True, "missing_indicator": True},
            {"name": "c", "kind": "categorical", "min_count": 2, "num_oov_buckets": 3},
            {"name": "tags", "kind": "sequence", "separator": "|", "max_length": 3},
        ],
        "carry": ["number"],
    }
    return FeatureSchema.model_validate({**raw, **changes})


def write_input(path: Path, rows: int = ROWS, seed: int = 0, bad: int = BAD) -> Path:
    """Rows numbered in `number`; user u has all its rows in one of three splits by time or key."""
    rng = np.random.default_rng(seed)
    lines = ["number,y,x,c,tags,user,t,part"]
    for i in range(rows):
        x = "" if rng.random() < 0.1 else f"{rng.lognormal():.4f}"
        tags = "|".join(f"g{int(t)}" for t in rng.zipf(1.6, rng.integers(0, 5)).clip(0, 40))
        part = ("train", "train", "validation", "test")[i % 4]
        lines.append(
            f"{i},{int(rng.random() < 0.2)},{x},v{int(rng.zipf(1.4)) % 97},{tags},"
            f"u{i % 200},{1_400_000_000 + 60 * int(rng.integers(0, 5000))},{part}"
        )
    for i in range(bad):
        lines.insert(1 + i * 300, f"{10**6 + i},1,not a number,v1,,u1,1400000000,train")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_input(tmp_path_factory.mktemp("input") / "log.csv")


@pytest.fixture(scope="module")
def data(log: Path, tmp_path_factory: pytest.TempPathFactory) -> DataDirectory:
    return preprocess(make_schema(), [str(log)], tmp_path_factory.mktemp("out") / "data", CONFIG)


def contents(directory: Path) -> dict[str, str]:
    return {
        str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(directory.rglob("*"))
        if p.is_file()
    }


def rows_of(data: DataDirectory, split: str) -> dict[str, np.ndarray]:
    layout = RowLayout.of(data.spec)
    files = sorted(str(p) for p in (data.path / split).glob("part-*"))
    return layout.unpack_numpy(read_packed(files, layout))


def numbers(data: DataDirectory, split: str) -> list[int]:
    return [int(n) for n in rows_of(data, split)["carry"][:, 0]]


def assert_nothing_left(parent: Path, *allowed: str) -> None:
    assert sorted(p.name for p in parent.iterdir()) == sorted(allowed)


# ------------------------------------------------------------------------------------- accounting


def test_every_row_is_in_exactly_one_place(data: DataDirectory) -> None:
    everything = [n for split in SPLITS for n in numbers(data, split)]
    assert sorted(everything) == list(range(ROWS))
    summary = data.summary
    assert summary["input_rows"] == ROWS + BAD == summary["sum_of_parts"]
    assert summary["rejected_rows"] == BAD
    assert summary["reject_reasons"] == {"x must be a number": BAD}
    assert summary["dropped_by_sampling"] == 0
    for split in SPLITS:
        part = summary["splits"][split]
        labels = rows_of(data, split)["label"]
        assert part["input_rows"] == part["rows"] == len(labels) == part["weight"]
        assert part["label_rate"] == pytest.approx(labels.mean(), rel=1e-6)
        assert part["shards"] == len(list((data.path / split).iterdir()))
    assert summary["splits"]["train"]["shards"] > 2
    others = ("_SUCCESS", "summary.json")
    files = {f.relative_to(data.path).as_posix(): f for f in data.path.rglob("*") if f.is_file()}
    assert summary["files"] == {
        name: file.stat().st_size
        for name, file in files.items()
        if name not in others and not name.startswith("rejects/")
    }
    assert {"schema.yaml", "spec.json", "statistics/statistics.json"} < set(summary["files"])
    for split in ("validation", "test"):
        assert summary["splits"][split]["rows"] == pytest.approx(ROWS * 0.1, abs=60)


def test_rejects_are_kept_with_their_place(data: DataDirectory, log: Path) -> None:
    lines = [
        json.loads(line)
        for file in sorted((data.path / "rejects").iterdir())
        for line in file.read_text().splitlines()
    ]
    assert len(lines) == BAD
    content = log.read_bytes()
    for i, entry in enumerate(sorted(lines, key=lambda e: e["offset"])):
        assert entry["file"] == str(log)
        assert entry["reason"] == "x must be a number: got 'not a number'"
        assert entry["raw"].startswith(f"{10**6 + i},1,not")
        assert content[entry["offset"] :].startswith(entry["raw"].encode())


def test_rows_are_shuffled_over_and_in_shards(data: DataDirectory) -> None:
    found = numbers(data, "train")
    assert abs(np.corrcoef(np.arange(len(found)), found)[0, 1]) < 0.1
    assert np.mean(np.abs(np.diff(found)) == 1) < 0.01


def test_the_parity_sample_is_raw_rows_beside_their_encoding(data: DataDirectory) -> None:
    import pyarrow as pa

    raw = pa.ipc.open_file(str(data.path / "parity_sample" / "raw.arrow")).read_all()
    layout = RowLayout.of(data.spec)
    rows = read_packed(str(data.path / "parity_sample" / "encoded.tfrecord"), layout)
    encoded = layout.unpack_numpy(rows)
    assert encoded["carry"][:, 0].tolist() == raw["number"].to_pylist()
    assert encoded["label"].tolist() == raw["y"].to_pylist()
    assert set(encoded["carry"][:, 0]) <= set(numbers(data, "test"))
    assert len(rows) > 50


def test_statistics_are_of_the_training_rows(data: DataDirectory, log: Path) -> None:
    import pandas as pd

    statistics = FeatureStatistics.load(data.path / "statistics")
    frame = pd.read_csv(log)
    frame = frame[pd.to_numeric(frame.x, errors="coerce").notna() | frame.x.isna()]
    train = frame[frame.number.isin(numbers(data, "train"))]
    counts = train.c.value_counts()
    kept = sorted(((-n, v) for v, n in counts.items() if n >= 2))
    assert statistics.vocabularies["c"].values.to_pylist() == [v.encode() for _, v in kept]
    assert statistics.vocabularies["c"].counts.tolist() == [-n for n, _ in kept]
    assert statistics.numbers["text"]["c"]["distinct"] == len(counts)
    x = pd.to_numeric(train.x).astype(np.float32).astype(np.float64)
    assert statistics.numbers["numeric"]["x"]["missing"] == x.isna().sum()
    assert statistics.numbers["numeric"]["x"]["mean"] == pytest.approx(x.mean(), rel=1e-12)
    prepared = np.log1p(x.fillna(0))
    assert statistics.numbers["numeric"]["x"]["prepared_standard_deviation"] == pytest.approx(
        prepared.std(ddof=0), rel=1e-12
    )
    tags = train.tags.dropna().str.split("|").explode().value_counts()
    found = dict(
        zip(
            statistics.vocabularies["tags"].values.to_pylist(),
            statistics.vocabularies["tags"].counts.tolist(),
            strict=True,
        )
    )
    assert found == {t.encode(): n for t, n in tags.items()}
    assert statistics.numbers["label_rate"] == pytest.approx(train.y.mean(), rel=1e-12)


# ------------------------------------------------------------------------------------- splits


def run(tmp_path: Path, log: Path, config: PreprocessConfig = CONFIG, **changes: Any) -> Any:
    return preprocess(make_schema(**changes), [str(log)], tmp_path / "data", config)


def test_keys_never_straddle_splits(tmp_path: Path, log: Path) -> None:
    made = run(tmp_path, log, split={"by": "key", "key": "user", "validation": 0.3, "test": 0.2})
    users = [{n % 200 for n in numbers(made, split)} for split in SPLITS]
    assert users[0] | users[1] | users[2] == set(range(200))
    assert sum(map(len, users)) == 200
    assert [len(u) for u in users] == pytest.approx([100, 60, 40], abs=20)


def test_time_is_ordered(tmp_path: Path, log: Path) -> None:
    split = {"by": "time", "validation": 0.2, "test": 0.1}
    made = run(
        tmp_path, log, split=split, time={"column": "t", "format": "epoch_s"}, carry=["number"]
    )
    import pandas as pd

    seconds = pd.read_csv(log).set_index("number").t
    parts = [seconds[numbers(made, name)] for name in SPLITS]
    assert parts[0].max() < parts[1].min()
    assert parts[1].max() < parts[2].min()
    assert [len(p) for p in parts] == pytest.approx([2100, 600, 300], abs=5)
    hours = FeatureStatistics.load(made.path / "statistics").numbers["label_rate_by_hour"]
    assert sum(rows for rows, _ in hours.values()) == ROWS


@pytest.mark.slow
def test_a_column_names_the_split(tmp_path: Path, log: Path) -> None:
    made = run(tmp_path, log, split={"by": "column", "column": "part"})
    for split, remainders in zip(SPLITS, ({0, 1}, {2}, {3}), strict=True):
        assert {n % 4 for n in numbers(made, split)} == remainders


def test_negative_down_sampling_keeps_its_rate_and_loses_no_click(
    tmp_path: Path, log: Path
) -> None:
    config = CONFIG.model_copy(update={"negative_keep_rate": 0.25})
    made, whole = run(tmp_path / "a", log, config), run(tmp_path / "b", log)
    kept, all_rows = rows_of(made, "train"), rows_of(whole, "train")
    assert made.negative_keep_rate == 0.25
    assert kept["label"].sum() == all_rows["label"].sum()
    negatives = (all_rows["label"] == 0).sum()
    assert (kept["label"] == 0).sum() == pytest.approx(negatives / 4, abs=4 * negatives**0.5 / 2)
    assert sorted(numbers(made, "test")) == sorted(numbers(whole, "test"))
    dropped = set(numbers(whole, "train")) - set(numbers(made, "train"))
    assert made.summary["dropped_by_sampling"] == len(dropped)
    assert made.summary["sum_of_parts"] == ROWS + BAD
    # The prior that the model must know is that of the log, not that of the sample.
    rates = [
        FeatureStatistics.load(m.path / "statistics").numbers["label_rate"] for m in (made, whole)
    ]
    assert rates[0] == rates[1]


@pytest.mark.slow
def test_counted_clicks_become_weighted_rows(tmp_path: Path) -> None:
    lines = ["number,n,m,c,x,tags"]
    lines += [f"{i},{i % 3},{3 + i % 2},v{i % 5},1," for i in range(600)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines))
    made = run(tmp_path, path, label={"clicks": "n", "impressions": "m"})
    totals = {0.0: 0.0, 1.0: 0.0}
    for split in SPLITS:
        rows = rows_of(made, split)
        for number, label, weight in zip(
            rows["carry"][:, 0], rows["label"], rows["weight"], strict=True
        ):
            clicks, shown = number % 3, 3 + number % 2
            assert weight == (clicks if label else shown - clicks)
            totals[float(label)] += float(weight)
    assert totals[1.0] == sum(i % 3 for i in range(600))
    assert totals[0.0] + totals[1.0] == sum(3 + i % 2 for i in range(600))
    assert made.summary["input_rows"] == 600 == made.summary["sum_of_parts"]


# ------------------------------------------------------------------------------------- determinism


def test_worker_processes_and_input_order_change_no_byte(
    tmp_path: Path, log: Path, data: DataDirectory
) -> None:
    options = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    made = preprocess(make_schema(), [str(log)], tmp_path / "data", CONFIG, beam_options=options)
    assert contents(made.path) == contents(data.path)
    assert_nothing_left(tmp_path, "data")


def test_what_a_dead_worker_has_left_belongs_to_nothing(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = preprocessing.collect_samples

    def after_a_death(staging: Path, *rest: Any) -> None:
        (staging / "train" / "part-00000-of-00009.tfrecord.4711").write_bytes(b"half a shard")
        collect(staging, *rest)

    monkeypatch.setattr(preprocessing, "collect_samples", after_a_death)
    made = preprocess(make_schema(), [str(log)], tmp_path / "data", CONFIG)
    left = made.path / "train" / "part-00000-of-00009.tfrecord.4711"
    named = {name for name in made.summary["files"] if name.startswith("train/")}
    assert named == {f"train/{p.name}" for p in left.parent.glob("*.tfrecord")} and left.exists()
    left.unlink()
    assert DataDirectory.open(made.path).summary == made.summary


def test_a_damaged_directory_is_not_taken_for_done(tmp_path: Path) -> None:
    log = write_input(tmp_path / "log.csv", 100, bad=0)
    made = preprocess(make_schema(), [str(log)], tmp_path / "data", CONFIG)
    whole = contents(made.path)
    min(made.path.glob("train/part-*")).unlink()
    with pytest.raises(
        DataError, match=r"missing\. Copy the directory again, or delete it and pre"
    ):
        preprocess(make_schema(), [str(log)], made.path, CONFIG)
    shutil.rmtree(made.path)
    preprocess(make_schema(), [str(log)], made.path, CONFIG)
    assert contents(made.path) == whole


def test_the_order_of_inputs_is_no_other_job(tmp_path: Path) -> None:
    paths = [str(write_input(tmp_path / f"{i}.csv", 100, seed=i, bad=0)) for i in range(2)]
    first = preprocess(make_schema(), paths, tmp_path / "data", CONFIG)
    before = {p: p.stat().st_mtime_ns for p in first.path.rglob("*")}
    preprocess(make_schema(), [*paths[::-1], paths[0]], tmp_path / "data", CONFIG)
    assert {p: p.stat().st_mtime_ns for p in first.path.rglob("*")} == before
    rows = sorted(n for split in SPLITS for n in numbers(first, split))
    assert rows == sorted([*range(100)] * 2)


@pytest.mark.slow
def test_the_size_of_blocks_changes_no_row(tmp_path: Path, log: Path) -> None:
    for block_bytes in (1024, 1 << 20):
        made = run(
            tmp_path / str(block_bytes), log, CONFIG.model_copy(update={"block_bytes": block_bytes})
        )
        assert sorted(n for split in SPLITS for n in numbers(made, split)) == list(range(ROWS))
        assert made.summary["rejected_rows"] == BAD


@pytest.mark.slow
def test_a_seed_changes_the_order_and_not_the_splits(
    tmp_path: Path, log: Path, data: DataDirectory
) -> None:
    made = run(tmp_path, log, CONFIG.model_copy(update={"seed": 5}))
    for split in SPLITS:
        assert numbers(made, split) != numbers(data, split)
        assert sorted(numbers(made, split)) == sorted(numbers(data, split))


def test_a_second_call_does_nothing(data: DataDirectory, log: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in data.path.rglob("*")}
    again = preprocess(make_schema(), [str(log)], data.path, CONFIG)
    assert again.fingerprint == data.fingerprint
    assert {p: p.stat().st_mtime_ns for p in data.path.rglob("*")} == before


def test_base_statistics_keep_ids(tmp_path: Path) -> None:
    log, base = tmp_path / "log.csv", tmp_path / "base"
    first = run(tmp_path, write_input(log, 400, seed=1, bad=0))
    old = FeatureStatistics.load(first.path / "statistics").vocabularies
    (first.path / "statistics").rename(base)
    shutil.rmtree(first.path)
    # The same process, the same places, another log: encoded with its own statistics.
    write_input(log, 400, seed=2, bad=0)
    second = preprocess(make_schema(), [str(log)], tmp_path / "data", CONFIG, base_statistics=base)
    new = FeatureStatistics.load(second.path / "statistics").vocabularies
    for name in ("c", "tags"):
        values = new[name].values.to_pylist()
        assert values[: len(old[name].values)] == old[name].values.to_pylist()
        assert len(values) > len(old[name].values)
    counts = np.bincount(rows_of(second, "train")["ids"][:, 0], minlength=100)
    assert counts[4 : 4 + len(new["c"].counts)].tolist() == new["c"].counts.tolist()
    # A feature that is empty today keeps its ids for tomorrow.
    empty = tmp_path / "c.csv"
    empty.write_text("number,y,x,c,tags\n" + "".join(f"{i},{i % 2},1,,\n" for i in range(99)))
    third = preprocess(
        make_schema(), [str(empty)], tmp_path / "c" / "data", CONFIG, base_statistics=base
    )
    kept = FeatureStatistics.load(third.path / "statistics").vocabularies["c"]
    assert kept.values.equals(old["c"].values)
    shifted = make_schema().model_dump()
    shifted["features"][1]["num_oov_buckets"] = 4
    with pytest.raises(ConfigError, match=r"num_oov_buckets must stay.*c: 4 now, 3 in"):
        preprocess(
            FeatureSchema.model_validate(shifted),
            [str(log)],
            tmp_path / "d" / "data",
            CONFIG,
            base_statistics=base,
        )
    with pytest.raises(ConfigError, match="--base-statistics must name"):
        preprocess(make_schema(), [str(empty)], tmp_path / "e", CONFIG, base_statistics=tmp_path)


# ------------------------------------------------------------------------------------- refusals


def refused(
    tmp_path: Path, kind: type[ClickparityError], text: str | None = None, **changes: Any
) -> str:
    path = tmp_path / "in" / "log.csv"
    path.parent.mkdir()
    if text is not None:
        path.write_text(text)
    out = tmp_path / "out" / "data"
    with pytest.raises(kind) as caught:
        preprocess(make_schema(**changes), [str(path)], out, CONFIG)
    assert type(caught.value) is kind
    assert not out.parent.exists() or list(out.parent.iterdir()) == []
    return str(caught.value)


HEADER = "number,y,x,c,tags\n"


@pytest.mark.parametrize(
    "kind, text, changes, parts",
    [
        (ConfigError, None, {}, ["must match at least one file"]),
        (DataError, "", {}, ["the input must have rows", "1 empty file(s)"]),
        (DataError, HEADER, {}, ["the input must have rows; got 0 rows"]),
        (DataError, "number,y,x\n1,1,1\n", {"carry": []}, []),
        (
            DataError,
            HEADER + "1,1,1,a,\n" * 98 + "1,1,a,a,\n2,5,1,a,\n",
            {},
            ["at most 1.00%", "2 of 100 (2.00%)", "1 x label y", "1 x x must be", "First reject"],
        ),
        (
            DataError,
            "number,y,x,c,tags,part\n" + "1,1,1,a,,test\n" * 5,
            {"split": {"by": "column", "column": "part"}},
            ["the train split must have rows", "train 0", "test 5"],
        ),
        (
            DataError,
            "number,y,x,c,tags,t\n" + "1,1,1,a,,1400000000\n" * 5,
            {"split": {"by": "time"}, "time": {"column": "t", "format": "epoch_s"}},
            ["the train split must have rows"],
        ),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    tmp_path: Path,
    kind: type[ClickparityError],
    text: str | None,
    changes: dict[str, Any],
    parts: list[str],
) -> None:
    if text and text.startswith("number,y,x\n"):  # a column is missing: the schema's fault
        message = refused(tmp_path, ConfigError, text, **changes)
        parts = ["missing: c, tags", "number, y, x"]
    else:
        message = refused(tmp_path, kind, text, **changes)
    assert all(part in message for part in parts), message


def test_a_directory_as_input_and_a_truncated_file(tmp_path: Path, log: Path) -> None:
    import gzip

    with pytest.raises(ConfigError, match="must match at least one file"):
        preprocess(make_schema(), [str(tmp_path)], tmp_path / "data", CONFIG)
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(log.read_bytes())[:-2000])
    with pytest.raises(DataError, match="must be a whole gzip file"):
        preprocess(make_schema(), [str(path)], tmp_path / "data", CONFIG)
    assert_nothing_left(tmp_path, "log.csv.gz")


def test_out_must_be_writable_and_ours(tmp_path: Path, log: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="must be writable"):
        preprocess(make_schema(), [str(log)], tmp_path / "file" / "data", CONFIG)
    with pytest.raises(ConfigError, match=r"new, empty.*file \(a file\)"):
        preprocess(make_schema(), [str(log)], tmp_path / "file", CONFIG)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "theirs").write_text("keep")
    with pytest.raises(ConfigError, match="another data set or run"):
        preprocess(make_schema(), [str(log)], tmp_path / "data", CONFIG)
    assert (tmp_path / "data" / "theirs").read_text() == "keep"
    assert_nothing_left(tmp_path, "data", "file")


def test_a_finished_directory_of_other_options_is_not_overwritten(
    data: DataDirectory, log: Path
) -> None:
    with pytest.raises(ConfigError, match="another data set or run"):
        preprocess(make_schema(), [str(log)], data.path, CONFIG.model_copy(update={"seed": 9}))
    assert DataDirectory.open(data.path).fingerprint == data.fingerprint


def test_one_process_at_a_time(tmp_path: Path) -> None:
    goal = tmp_path / "goal"
    with step_directory(goal, "f") as staging:
        with (
            pytest.raises(ClickparityError, match="one process at a time"),
            step_directory(goal, "f"),
        ):
            pass
        assert staging.exists()
    assert (goal / "_SUCCESS").read_text() == "f\n"
    assert_nothing_left(tmp_path, "goal")
