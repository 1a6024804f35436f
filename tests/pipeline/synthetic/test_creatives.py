"""Simulated clicks on pictures: what is in the picture drives them, and no picture is in two splits."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from scipy.special import logit

from pipeline.errors import ConfigError
from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import SPLITS, DataDirectory
from pipeline.schema import FeatureSchema
from pipeline.synthetic.creatives import CREATIVE_SCHEMA, CreativeLog


def pictures(kinds: int = 4, each: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Bright boxes on black; kind k is 2 + 2 k wide and 8 high."""
    rng = np.random.default_rng(0)
    made = np.zeros((kinds * each, 28, 28), np.uint8)
    for i in range(kinds * each):
        width = 2 + 2 * (i // each)
        made[i, 5:13, 5 : 5 + width] = rng.integers(80, 256)
    return made, np.repeat(np.arange(kinds), each)


@pytest.fixture(scope="module")
def log() -> CreativeLog:
    return CreativeLog(*pictures(), num_rows=20_000, ctr=0.1)


def test_creatives_are_held_out_whole_and_every_kind_is_in_every_split(log: CreativeLog) -> None:
    rows = log.table()
    split_of: dict[int, set[str]] = {}
    for creative, split in zip(
        rows["creative"].to_pylist(), rows["split"].to_pylist(), strict=True
    ):
        split_of.setdefault(creative, set()).add(split)
    assert {len(splits) for splits in split_of.values()} == {1}
    assert len(split_of) == 80
    for kind in range(4):
        counts = np.unique(log.split_of_creative[log.kinds == kind], return_counts=True)
        assert dict(zip(*counts, strict=True)) == {"train": 13, "validation": 2, "test": 5}


def test_the_image_is_the_picture_and_the_mean_probability_the_ctr(log: CreativeLog) -> None:
    rows = log.table()
    for i in (0, 7):
        pixels = tf.io.decode_png(rows["image"][i].as_py()).numpy()[:, :, 0]
        np.testing.assert_array_equal(pixels, log.pictures[rows["creative"][i].as_py()])
    p, click = rows["true_probability"].to_numpy(), rows["click"].to_numpy()
    assert p.mean() == pytest.approx(0.1, rel=1e-6)
    assert abs(click.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())
    assert rows.equals(log.table())
    assert not rows.equals(CreativeLog(*pictures(), num_rows=20_000, seed=1).table())


def test_looks_by_hand() -> None:
    """Boxes 8 high and 2, 4, 6, 8 wide: tallness log 4, log 2, log 4/3, log 1, standardised."""
    made, kinds = pictures()
    tallness = CreativeLog(made, kinds, 1).looks[1][::20]
    raw = np.log([4.0, 2.0, 4 / 3, 1.0])
    np.testing.assert_allclose(tallness, (raw - raw.mean()) / raw.std(), atol=1e-12)
    flat = CreativeLog(np.zeros_like(made), kinds, 1)
    assert np.abs(flat.looks).max() == 0  # nothing to see, and no NaN


def test_the_picture_alone_and_with_the_columns_moves_the_true_logit(log: CreativeLog) -> None:
    rows = log.table()
    z = logit(rows["true_probability"].to_numpy())
    kind, segment = log.kinds[rows["creative"].to_numpy()], rows["segment"].to_numpy()
    spread = [z[kind == k].mean() for k in range(4)]
    assert np.ptp(spread) > 0.3
    # how much better the first kind does than the last differs between segments
    better = [
        z[(kind == 0) & (segment == s)].mean() - z[(kind == 3) & (segment == s)].mean()
        for s in np.unique(segment)
    ]
    assert np.ptp(better) > 0.3


def test_the_log_preprocesses_and_its_test_pictures_are_new(log: CreativeLog, tmp_path) -> None:
    few = CreativeLog(log.pictures, log.kinds, num_rows=600)
    pq.write_table(few.table(), tmp_path / "log.parquet")
    schema = FeatureSchema.from_yaml(CREATIVE_SCHEMA, "CREATIVE_SCHEMA")
    data: DataDirectory = preprocess(schema, [str(tmp_path / "log.parquet")], tmp_path / "data")
    assert sum(data.num_rows(s) for s in SPLITS) == 600
    from pipeline.records.dataset import evaluation_batches

    seen: dict[str, set[float]] = {}
    for split in SPLITS:
        (batch,) = evaluation_batches(data, split, 1000)
        assert batch["image/image"].shape[1:] == (28, 28, 1)
        creative = batch["carry"].numpy()[:, data.spec.carry.index("creative")]
        seen[split] = set(creative)
        np.testing.assert_array_equal(
            batch["image/image"].numpy()[0, :, :, 0], log.pictures[int(creative[0])]
        )
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]


def test_impossible_logs_are_refused() -> None:
    made, kinds = pictures()
    with pytest.raises(ConfigError, match=r"pictures must be \[creatives, height, width\]"):
        CreativeLog(made, kinds[:-1], 10)
    with pytest.raises(ConfigError, match=r"ctr strictly between 0 and 1; got .*ctr=1\.0"):
        CreativeLog(made, kinds, 10, ctr=1.0)
    with pytest.raises(ConfigError, match="num_rows must be positive"):
        CreativeLog(made, kinds, 0)
    with pytest.raises(ConfigError, match=r"at least 10 pictures.*got 9 pictures of one kind"):
        CreativeLog(made[:29], np.repeat([0, 1], [20, 9]), 10)
