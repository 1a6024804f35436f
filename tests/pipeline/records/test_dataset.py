"""Training and evaluation input: each row once an epoch, and the same rows in the same order again."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import ConfigError, DataError
from pipeline.records import dataset
from pipeline.records.data_directory import DataDirectory
from pipeline.records.dataset import (
    evaluation_batches,
    naming_damaged_shards,
    steps_per_epoch,
    training_batches,
    unpacked_batches,
)
from pipeline.records.encoded import EncodedSpec, IdFeature
from pipeline.records.examples import write_examples
from pipeline.records.packed import RowLayout, read_packed, write_packed
from tests.damage import flip_a_bit

SPEC = EncodedSpec(numeric=("n",), categorical=(IdFeature("c", 1000),), carry=("number",))
ROWS = {"train": [40, 1, 0, 30, 32], "validation": [5, 7], "test": [0]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataDirectory:
    path = tmp_path_factory.mktemp("data")
    layout = RowLayout.of(SPEC)
    number = 0
    for split, sizes in ROWS.items():
        (path / split).mkdir()
        for i, rows in enumerate(sizes):
            numbers = np.arange(number, number + rows)
            number += rows
            packed = layout.pack(
                {
                    "numeric": numbers[:, None] / 2,
                    "ids": numbers[:, None],
                    "label": numbers % 2,
                    "weight": np.ones(rows),
                    "carry": numbers[:, None],
                }
            )
            name = f"part-{i:05d}-of-{len(sizes):05d}.tfrecord"
            write_packed(str(path / split / name), layout, packed, rows_per_record=9)
    (path / "spec.json").write_text(SPEC.to_json())
    summary = {
        "files": {
            file.relative_to(path).as_posix(): file.stat().st_size
            for file in path.rglob("*")
            if file.is_file()
        },
        "splits": {
            split: {
                "rows": sum(sizes),
                "shards": len(sizes),
                "label_rate": 0.5,
            }
            for split, sizes in ROWS.items()
        },
    }
    (path / "summary.json").write_text(json.dumps({**summary, "negative_keep_rate": 1.0}))
    (path / "_SUCCESS").write_text("f\n")
    return DataDirectory.open(path)


def epoch(
    data: DataDirectory, batch_size: int = 8, seed: int = 1, epoch: int = 0, first_step: int = 0
) -> list[dict[str, np.ndarray]]:
    batches = training_batches(
        data, batch_size=batch_size, seed=seed, epoch=epoch, first_step=first_step
    )
    return list(batches.as_numpy_iterator())


def numbers(batches: list[dict[str, np.ndarray]]) -> list[int]:
    return [int(n) for b in batches for n in b["carry"][:, 0]]


@pytest.mark.parametrize("batch_size", [1, 8, 100, 103, 250])
def test_every_row_counts_once_an_epoch(data: DataDirectory, batch_size: int) -> None:
    batches = epoch(data, batch_size)
    assert len(batches) == steps_per_epoch(data, batch_size) == -(-103 // batch_size)
    assert {len(b["label"]) for b in batches} == {batch_size}
    rows = numbers(batches)
    weights = np.concatenate([b["weight"] for b in batches])
    assert sorted(np.array(rows)[weights == 1]) == list(range(103))
    assert set(weights.tolist()) <= {0.0, 1.0}
    assert set(rows) == set(range(103))  # what tops up are real rows
    for b in batches:  # and a row stays together
        assert (b["ids"][:, 0] == b["carry"][:, 0]).all()
        assert (b["numeric"][:, 0] * 2 == b["carry"][:, 0]).all()
        assert (b["label"] == b["carry"][:, 0] % 2).all()


def test_order_follows_seed_and_epoch_alone(data: DataDirectory) -> None:
    first = numbers(epoch(data))
    assert numbers(epoch(data)) == first
    others = [numbers(epoch(data, seed=2)), numbers(epoch(data, epoch=1)), sorted(first)]
    assert all(other[:16] != first[:16] for other in others)


def test_each_epoch_reads_the_files_in_another_order(
    data: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows meet only those of their window: over epochs, windows must hold other files."""
    monkeypatch.setattr(dataset, "_WINDOW_ROWS", 1)  # no shuffling of rows: only the files' order
    monkeypatch.setattr(dataset, "_CYCLE_LENGTH", 1)
    first_of_file = {0: 40, 40: 1, 41: 30, 71: 32}  # its first number -> its rows

    def files_of(**options: int) -> list[int]:
        rows = numbers(epoch(data, batch_size=103, **options))
        order = [row for row in rows if row in first_of_file]
        expected = [n for start in order for n in range(start, start + first_of_file[start])]
        assert rows == expected
        return order

    by_epoch = [files_of(epoch=number) for number in range(6)]
    assert len({tuple(order) for order in by_epoch}) >= 4
    assert len({order[0] for order in by_epoch}) > 1
    assert files_of(epoch=3) == by_epoch[3]
    by_seed = [files_of(seed=number) for number in range(6)]
    assert len({tuple(order) for order in by_seed}) >= 4


@pytest.mark.parametrize("first_step", [1, 5, 12, 13])
def test_resuming_continues_exactly(data: DataDirectory, first_step: int) -> None:
    whole, rest = epoch(data), epoch(data, first_step=first_step)
    assert len(rest) == 13 - first_step
    for expected, got in zip(whole[first_step:], rest, strict=True):
        assert {k: v.tobytes() for k, v in got.items()} == {
            k: v.tobytes() for k, v in expected.items()
        }


def test_windows_are_permuted_apart(data: DataDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_WINDOW_ROWS", 10)
    rows = numbers(epoch(data, batch_size=103))
    assert sorted(rows) == list(range(103))
    assert numbers(epoch(data, batch_size=103)) == rows


@pytest.mark.parametrize("batch_size", [1, 5, 12, 99])
def test_evaluation_is_every_row_in_file_order(data: DataDirectory, batch_size: int) -> None:
    batches = list(evaluation_batches(data, "validation", batch_size).as_numpy_iterator())
    assert numbers(batches) == list(range(103, 115))
    assert [len(b["label"]) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_the_examples_layout_gives_the_same_rows(data: DataDirectory, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data.path, copy)
    layout = RowLayout.of(SPEC)
    for file in copy.glob("*/part-*"):
        write_examples(str(file), layout, SPEC, read_packed(str(file), layout))
    summary = json.loads((copy / "summary.json").read_text())
    del summary["files"]  # as earlier versions wrote it
    (copy / "summary.json").write_text(json.dumps({**summary, "layout": "examples"}))
    other = DataDirectory.open(copy)
    for expected, got in zip(
        evaluation_batches(data, "train", 10).as_numpy_iterator(),
        evaluation_batches(other, "train", 10).as_numpy_iterator(),
        strict=True,
    ):
        assert {k: v.tobytes() for k, v in got.items()} == {
            k: v.tobytes() for k, v in expected.items()
        }
    assert sorted(numbers(epoch(other, batch_size=103))) == list(range(103))


def test_a_split_without_rows_or_name_is_refused(data: DataDirectory) -> None:
    with pytest.raises(ConfigError, match="the test split must have rows"):
        evaluation_batches(data, "test", 4)
    with pytest.raises(ConfigError, match="one of train, validation, test; got 'tset'"):
        evaluation_batches(data, "tset", 4)


def test_an_alien_file_stops_training(data: DataDirectory, tmp_path: Path) -> None:
    shutil.copytree(data.path, tmp_path / "copy")
    opened = DataDirectory.open(tmp_path / "copy")
    other = EncodedSpec(numeric=("n", "m"), categorical=(), carry=("number",))
    (tmp_path / "copy" / "spec.json").write_text(other.to_json())
    with pytest.raises(tf.errors.InvalidArgumentError, match="must match the layout"):
        epoch(opened)


def first_record_alone(shard: Path) -> None:
    """What TensorFlow reads to its end without an error."""
    (length,) = struct.unpack("<Q", shard.read_bytes()[:8])
    os.truncate(shard, 8 + 4 + length + 4)
    assert sum(1 for _ in tf.data.TFRecordDataset(str(shard))) == 1


@pytest.mark.parametrize(
    "damage, received",
    [
        (first_record_alone, r"with [\d,]+ bytes for [\d,]+"),
        (
            lambda shard: os.truncate(shard, shard.stat().st_size - 1),
            r"with [\d,]+ bytes for [\d,]+",
        ),
        (Path.unlink, "missing"),
    ],
    ids=["cut between records", "cut in a record", "missing"],
)
def test_a_file_that_is_not_as_written_is_named(
    damage: Callable[[Path], None], received: str, data: DataDirectory, tmp_path: Path
) -> None:
    shutil.copytree(data.path, tmp_path / "copy")
    shard = tmp_path / "copy" / "train" / "part-00003-of-00005.tfrecord"
    damage(shard)
    with pytest.raises(DataError, match=f"as preprocess wrote it; got {shard} {received}\\. Copy"):
        DataDirectory.open(tmp_path / "copy")


def test_three_of_many_lost_files_are_named(data: DataDirectory, tmp_path: Path) -> None:
    shutil.copytree(data.path, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "train")
    with pytest.raises(DataError, match=r"(.* missing; ){2}.* missing and 2 more\. Copy"):
        DataDirectory.open(tmp_path / "copy")


def test_a_shard_with_another_bit_is_named(data: DataDirectory, tmp_path: Path) -> None:
    shutil.copytree(data.path, tmp_path / "copy")
    other = DataDirectory.open(tmp_path / "copy")
    shard = tmp_path / "copy" / "train" / "part-00003-of-00005.tfrecord"
    flip_a_bit(shard)
    rule = f"as preprocess wrote it; got {shard}: corrupted record at \\d+\\. Copy"
    with pytest.raises(DataError, match=rule), naming_damaged_shards(other):
        epoch(other)


def test_shards_of_another_run_beside_ours_are_not_read(
    data: DataDirectory, tmp_path: Path
) -> None:
    shutil.copytree(data.path, tmp_path / "copy")
    folder = tmp_path / "copy" / "train"
    shutil.copy(folder / "part-00000-of-00005.tfrecord", folder / "part-00000-of-00002.tfrecord")
    assert len(DataDirectory.open(tmp_path / "copy").files("train")) == 5


def test_an_error_that_no_shard_explains_stays_what_it_is(data: DataDirectory) -> None:
    with pytest.raises(tf.errors.DataLossError, match="elsewhere"), naming_damaged_shards(data):
        raise tf.errors.DataLossError(None, None, "elsewhere")


def test_an_unfinished_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"_SUCCESS.*clickparity preprocess"):
        DataDirectory.open(tmp_path)


@pytest.mark.parametrize("batch_size", [3, 512, 9000])
@pytest.mark.parametrize(
    "spec",
    [SPEC, EncodedSpec(numeric=("n",), categorical=()), EncodedSpec(numeric=(), categorical=())],
    ids=["all", "no ids, no carry", "labels alone"],
)
def test_batches_unpacked_together_are_those_unpacked_alone(
    spec: EncodedSpec, batch_size: int
) -> None:
    layout = RowLayout.of(spec)
    rows = np.arange(20_000 * layout.row_words, dtype=np.int32).reshape(20_000, -1)
    pieces = tf.data.Dataset.from_tensor_slices(rows).batch(700)  # no multiple of any batch
    found = list(unpacked_batches(pieces, layout, batch_size).take(20).as_numpy_iterator())
    assert len(found) == {3: 20, 512: 20, 9000: 2}[batch_size]
    for i, batch in enumerate(found):
        alone = layout.unpack(tf.constant(rows[i * batch_size : (i + 1) * batch_size]))
        assert set(batch) == set(alone)
        for name, values in alone.items():
            assert batch[name].dtype == values.numpy().dtype
            assert batch[name].shape == values.shape
            assert batch[name].tobytes() == values.numpy().tobytes(), (name, i)
