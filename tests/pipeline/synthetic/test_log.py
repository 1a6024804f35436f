"""The synthetic log: its truth is the truth, its rows do not depend on how they are asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipeline.errors import ConfigError
from pipeline.synthetic import log as synthetic
from pipeline.synthetic.log import SyntheticLog
from pipeline.synthetic.world import (
    BLOCK_ROWS,
    CATEGORICAL,
    DAY_S,
    MAX_TAGS,
    NUMERIC,
    START_S,
    draw_block,
)

ROWS = 40_000  # two and a half blocks


def table(log: SyntheticLog, chunk_rows: int = 65_536) -> pa.Table:
    return pa.Table.from_batches(log.batches(chunk_rows))


@pytest.fixture(scope="module")
def flat() -> pa.Table:
    return table(SyntheticLog(200_000, drift=0.0))


@settings(max_examples=8, deadline=None)
@given(chunk_rows=st.integers(min_value=1_000, max_value=60_000))
def test_rows_do_not_depend_on_the_chunk_size(chunk_rows: int) -> None:
    log = SyntheticLog(ROWS, seed=4)
    sizes = [batch.num_rows for batch in log.batches(chunk_rows)]
    assert sizes[:-1] == [chunk_rows] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= chunk_rows
    assert table(log, chunk_rows).equals(table(log))


def test_same_seed_same_rows_other_seed_other_rows() -> None:
    rows = table(SyntheticLog(1_000, seed=1))
    assert rows.equals(table(SyntheticLog(1_000, seed=1)))
    assert not rows["c1"].equals(table(SyntheticLog(1_000, seed=2))["c1"])


def test_the_truth_is_the_same_world_for_every_seed_and_for_a_shorter_log() -> None:
    short, long = SyntheticLog(1_000, drift=0.0), SyntheticLog(ROWS, drift=0.0)
    assert table(short)["c1"].equals(table(long)["c1"].slice(0, 1_000))
    assert short.intercept == pytest.approx(long.intercept, abs=0.5)
    other = SyntheticLog(ROWS, drift=0.0, seed=9)
    assert other.intercept == pytest.approx(long.intercept, abs=0.1)


def test_mean_true_probability_is_the_chosen_ctr_also_beyond_the_calibration_sample() -> None:
    for ctr in (0.002, 0.02, 0.3):
        p = table(SyntheticLog(ROWS, ctr=ctr))["true_probability"].to_numpy()
        assert p.mean() == pytest.approx(ctr, rel=1e-6)


def test_calibration_on_spread_blocks_is_within_one_percent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(synthetic, "CALIBRATION_BLOCKS", 12)
    p = table(SyntheticLog(25 * BLOCK_ROWS))["true_probability"].to_numpy()
    assert p.mean() == pytest.approx(0.02, rel=0.01)
    assert p.mean() != pytest.approx(0.02, rel=1e-6)


def test_clicks_are_drawn_from_the_true_probability(flat: pa.Table) -> None:
    p, click = flat["true_probability"].to_numpy(), flat["click"].to_numpy()
    assert set(np.unique(click)) == {0, 1}
    for low, high in ((0.0, 0.01), (0.01, 0.05), (0.05, 0.2), (0.2, 1.0)):
        inside = (p >= low) & (p < high)
        deviation = np.sqrt((p * (1 - p))[inside].sum())
        assert abs(click[inside].sum() - p[inside].sum()) < 4 * deviation
    assert 0.80 <= roc_auc_score(click, p) <= 0.86


def test_values_are_heavy_tailed_and_missing_as_stated(flat: pa.Table) -> None:
    for name, numeric in NUMERIC.items():
        values = flat[name].drop_null().to_numpy()
        assert flat[name].null_count / ROWS / 5 == pytest.approx(numeric.missing, abs=0.005)
        assert values.mean() > 1.5 * np.median(values)
        assert (values >= 0).all()
        assert (values == np.floor(values)).all() == numeric.count
    for name, feature in CATEGORICAL.items():
        share = flat[name].null_count / flat.num_rows
        assert share == pytest.approx(feature.missing, abs=0.005)
        assert len(flat[name].unique()) <= feature.cardinality + (feature.missing > 0)
    counts = np.sort([c["counts"] for c in flat["c1"].value_counts().to_pylist()])[::-1]
    # Zipf with exponent 1.05: rank 1 over rank 10 is 10 ** 1.05 = 11.2.
    assert counts[0] / counts[9] == pytest.approx(10**1.05, rel=0.15)
    assert len(counts) > 20_000
    assert "" in flat["tags"].unique().to_pylist()
    assert max(t.count("|") for t in flat["tags"].to_pylist()) == MAX_TAGS - 1


def test_children_are_functions_of_their_parents(flat: pa.Table) -> None:
    pairs = flat.select(["c2", "c3"]).group_by(["c2", "c3"]).aggregate([])
    assert pairs.num_rows == len(flat["c2"].unique())
    hours = flat["time"].to_numpy() % DAY_S // 3600
    assert flat["c11"].to_pylist() == [f"hour{h}" for h in hours]


def test_time_rises_through_the_days() -> None:
    time_s = table(SyntheticLog(ROWS, num_days=3))["time"].to_numpy()
    assert (np.diff(time_s) >= 0).all()
    day = (time_s - START_S) // DAY_S
    assert np.bincount(day).tolist() == pytest.approx([ROWS / 3] * 3, abs=2)


def test_drift_moves_the_days_and_zero_drift_does_not() -> None:
    def by_day(drift: float) -> np.ndarray:
        log = SyntheticLog(100_000, drift=drift)
        rows = table(log)
        day = (rows["time"].to_numpy() - START_S) // DAY_S
        p = rows["true_probability"].to_numpy()
        return np.bincount(day, weights=p) / np.bincount(day)

    calm, moving = by_day(0.0), by_day(3.0)
    assert calm.max() / calm.min() < 1.25
    assert moving.max() / moving.min() > 1.5


def test_an_additive_model_of_the_truth_leaves_a_gap_to_bayes(flat: pa.Table) -> None:
    """The best additive fit of the true logits themselves, so no estimation noise is in the gap."""
    blocks = [draw_block(200_000, 7, 0, 0.0, i) for i in range(6)]
    logits = np.concatenate([b.logits for b in blocks])
    fit = np.full(len(logits), logits.mean())
    columns = [np.concatenate([b.ids[n] for b in blocks]) for n in CATEGORICAL]
    for name in NUMERIC:
        x = np.concatenate([b.numeric[name] for b in blocks])
        edges = np.unique(np.nanquantile(x, np.linspace(0, 1, 30)[1:-1]))
        columns.append(np.where(np.isnan(x), len(edges) + 1, np.searchsorted(edges, x)))
    for _ in range(4):  # backfitting
        for ids in columns:
            count = np.bincount(ids)
            residual = np.bincount(ids, weights=logits - fit) / (count + 5.0)
            fit += residual[ids]
    p = flat["true_probability"].to_numpy()[: len(fit)]
    click = flat["click"].to_numpy()[: len(fit)]
    assert roc_auc_score(click, p) - roc_auc_score(click, fit) > 0.02


def test_files_hold_the_rows_in_order_and_floats_round_trip(tmp_path: Path) -> None:
    log = SyntheticLog(ROWS, seed=5)
    seen: list[int] = []
    files = synthetic.write_log(log, tmp_path / "log", 3, seen.append, chunk_rows=7_000)
    assert [f.name for f in files] == ["part-00000.csv", "part-00001.csv", "part-00002.csv"]
    assert sorted(tmp_path.glob("log/*")) == files
    assert sorted(tmp_path.glob("log/.*")) == []
    assert seen == sorted(seen)
    assert seen[-1] == ROWS
    expected = table(log)
    convert = pa.csv.ConvertOptions(
        column_types=expected.schema, strings_can_be_null=True, null_values=[""]
    )
    read = pa.concat_tables(pa.csv.read_csv(f, convert_options=convert) for f in files)
    for name in expected.column_names:
        if name == "tags":
            assert read[name].fill_null("").combine_chunks().equals(expected[name].combine_chunks())
        else:
            assert read[name].combine_chunks().equals(expected[name].combine_chunks()), name


def test_bytes_of_the_files_are_the_same_every_time(tmp_path: Path) -> None:
    log = SyntheticLog(2_000)
    one = synthetic.write_log(log, tmp_path / "a")[0].read_bytes()
    synthetic.write_log(log, tmp_path / "a", chunk_rows=999)  # again over itself
    two = (tmp_path / "a" / "part-00000.csv").read_bytes()
    assert hashlib.sha256(one).hexdigest() == hashlib.sha256(two).hexdigest()


def test_a_write_that_dies_leaves_nothing(tmp_path: Path) -> None:
    def die(rows: int) -> None:
        if rows > 20_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.write_log(SyntheticLog(ROWS), tmp_path, 2, die, chunk_rows=5_000)
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_log_are_not_mixed_in(tmp_path: Path) -> None:
    synthetic.write_log(SyntheticLog(100), tmp_path, 2)
    with pytest.raises(ConfigError, match=r"parts of another log; got .*part-00001.csv"):
        synthetic.write_log(SyntheticLog(100), tmp_path, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_rows": 0}, "num_rows must be an integer of at least 1; got 0"),
        ({"num_rows": 9, "num_days": 0}, "num_days must be an integer of at least 1; got 0"),
        ({"num_rows": 9, "seed": -1}, "seed must be an integer of at least 0; got -1"),
        ({"num_rows": 9, "ctr": 1.0}, "ctr must lie strictly between 0 and 1; got 1.0"),
        ({"num_rows": 9, "ctr": float("nan")}, "ctr must lie strictly between 0 and 1; got nan"),
        ({"num_rows": 9, "drift": -0.1}, "drift must be finite and not negative; got -0.1"),
    ],
)
def test_impossible_logs_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SyntheticLog(**arguments)


def test_impossible_writes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="num_files must lie between 1 and the number of rows; got 0"
    ):
        synthetic.write_log(SyntheticLog(10), tmp_path, 0)
    with pytest.raises(ConfigError, match="chunk_rows must be positive; got 0"):
        SyntheticLog(10).batches(0)
    with pytest.raises(ConfigError, match="chunk_rows must be positive; got 0"):
        synthetic.write_log(SyntheticLog(10), tmp_path, chunk_rows=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="must be a folder that can be written"):
        synthetic.write_log(SyntheticLog(10), tmp_path / "file")


@pytest.mark.parametrize("num_rows", [1, 7, BLOCK_ROWS, BLOCK_ROWS + 1])
def test_edges_of_the_blocks(num_rows: int) -> None:
    rows = table(SyntheticLog(num_rows, num_days=30))
    assert rows.num_rows == num_rows
    assert rows["true_probability"].to_numpy().mean() == pytest.approx(0.02, rel=1e-6)
