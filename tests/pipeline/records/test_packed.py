"""Packed records: what goes in comes out; what is not ours is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records.encoded import EncodedSpec, IdFeature, ImageFeature, SequenceFeature
from pipeline.records.packed import HEADER_WORDS, RowLayout, read_packed, write_packed


def spec(
    numeric: int = 2, ids: int = 3, length: int = 4, image: int = 3, carry: int = 1
) -> EncodedSpec:
    return EncodedSpec(
        numeric=tuple(f"n{i}" for i in range(numeric)),
        categorical=tuple(IdFeature(f"c{i}", 100) for i in range(ids)),
        sequences=(SequenceFeature("s", 100, length, "s"),) if length else (),
        images=(ImageFeature("p", image, image, 1),) if image else (),
        carry=tuple(f"k{i}" for i in range(carry)),
    )


def tensors(spec: EncodedSpec, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {
        "numeric": rng.standard_normal((rows, len(spec.numeric))).astype(np.float32),
        "ids": rng.integers(0, 100, (rows, len(spec.categorical)), dtype=np.int32),
        "label": rng.integers(0, 2, rows).astype(np.float32),
        "weight": rng.random(rows).astype(np.float32),
        "carry": rng.random((rows, len(spec.carry))).astype(np.float32),
    }
    for s in spec.sequences:
        made[f"sequence/{s.name}"] = rng.integers(0, 9, (rows, s.max_length), dtype=np.int32)
    for p in spec.images:
        shape = (rows, p.height, p.width, p.channels)
        made[f"image/{p.name}"] = rng.integers(0, 256, shape, dtype=np.uint8)
    return made


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(0, 5) for _ in range(5))),
    rows=st.integers(0, 9),
    rows_per_record=st.integers(1, 5),
)
def test_any_layout_survives_packing_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: tuple[int, int, int, int, int],
    rows: int,
    rows_per_record: int,
) -> None:
    made_spec = spec(*sizes)
    layout = RowLayout.of(made_spec)
    made = tensors(made_spec, rows)
    path = str(tmp_path_factory.mktemp("records") / "f.tfrecord")
    write_packed(path, layout, layout.pack(made), rows_per_record=rows_per_record)
    packed = read_packed(path, layout)
    in_numpy = layout.unpack_numpy(packed)
    in_graph = layout.unpack(tf.constant(packed))
    assert set(in_numpy) == set(in_graph) == set(made)
    for key, values in made.items():
        assert in_numpy[key].dtype == in_graph[key].numpy().dtype == values.dtype
        assert in_numpy[key].tolist() == values.tolist() == in_graph[key].numpy().tolist(), key


def test_a_row_by_hand() -> None:
    layout = RowLayout.of(spec(numeric=1, ids=1, length=0, image=3, carry=0))
    made = {
        "numeric": [[1.0]], "ids": [[7]], "label": [1.0], "weight": [2.0], "carry": [[]],
        "image/p": np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1),
    }  # fmt: skip
    row = layout.pack({k: np.array(v) for k, v in made.items()})
    # float 1.0, id 7, nine pixels padded to three little-endian words, float 1.0, float 2.0
    words = [0x3F800000, 7, 0x03020100, 0x07060504, 0x00000008, 0x3F800000, 0x40000000]
    assert row.tolist() == [words]
    assert layout.column("weight") == 6
    record = np.frombuffer(layout.to_record(row), "<i4")
    assert record[:3].tolist() == [int.from_bytes(b"CPK1", "little"), 7, 1]
    assert record[HEADER_WORDS:].tolist() == words


@pytest.mark.parametrize(
    "other", [spec(ids=4), spec(image=4), spec(numeric=3, ids=2), spec(carry=0), spec(length=5)]
)
def test_a_record_of_another_layout_is_an_error(tmp_path: Path, other: EncodedSpec) -> None:
    path = str(tmp_path / "f.tfrecord")
    written = RowLayout.of(spec())
    write_packed(path, written, written.pack(tensors(spec(), 3)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="must match the layout"):
        read_packed(path, RowLayout.of(other))


@pytest.mark.parametrize("change", ["short", "long", "magic"])
def test_a_damaged_record_is_an_error(change: str) -> None:
    layout = RowLayout.of(spec())
    record = layout.to_record(layout.pack(tensors(spec(), 3)))
    damaged = {"short": record[:-4], "long": record + bytes(4), "magic": b"XXXX" + record[4:]}
    with pytest.raises(tf.errors.InvalidArgumentError, match="Preprocess again"):
        layout.from_record(tf.constant(damaged[change]))


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f.tfrecord"
    layout = RowLayout.of(spec())
    write_packed(str(path), layout, layout.pack(tensors(spec(), 10)), rows_per_record=5)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(tf.errors.DataLossError):
        read_packed(str(path), layout)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    layout = RowLayout.of(spec())
    write_packed(str(tmp_path / "f"), layout, layout.pack(tensors(spec(), 0)))
    assert read_packed(str(tmp_path / "f"), layout).shape == (0, layout.row_words)
