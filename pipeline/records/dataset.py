"""TFRecord shards -> tf.data batches of encoded tensors, at memory speed.

Shards were shuffled globally when they were written. An epoch permutes the order of the shards,
interleaves them and permutes rows inside a window; all three follow from (seed, epoch), so a position
in the data is fully described by (seed, epoch, step) and an input is rebuilt from it after a restart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from pipeline.errors import reason_of
from pipeline.records.data_directory import SPLITS, DataDirectory, damaged
from pipeline.records.packed import RowLayout

__all__ = [
    "evaluation_batches",
    "naming_damaged_shards",
    "steps_per_epoch",
    "training_batches",
    "unpacked_batches",
]

_WINDOW_ROWS = 1 << 16  # rows permuted together: 65,536 rows of 45 words are 12 MB
_CYCLE_LENGTH = 4
_EXAMPLES_AT_ONCE = 1024
_UNPACKED_TOGETHER = 8192  # rows: some MB


def steps_per_epoch(data: DataDirectory, batch_size: int) -> int:
    """Steps that show every training row once: ceil(rows / batch_size).

    Raises:
        ConfigError: there is none.
    """
    data.files("train")  # refuses an empty split
    return -(-data.num_rows("train") // batch_size)


def _decode(files: tf.data.Dataset, data: DataDirectory, *, cycle_length: int) -> tf.data.Dataset:
    """File names -> int32 [n, row_words] a record, in an order that depends on the file order only."""
    layout = RowLayout.of(data.spec)

    def rows_of(file: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(file)
        if data.layout == "examples":
            from pipeline.records.examples import rows_from_examples

            batches = records.batch(_EXAMPLES_AT_ONCE)
            return batches.map(lambda batch: rows_from_examples(batch, layout, data.spec))
        return records.map(layout.from_record)

    return files.interleave(
        rows_of, cycle_length=cycle_length, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Rebatching by us, sharding by the strategy: a file-level auto-shard would change what a step sees.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


def unpacked_batches(rows: tf.data.Dataset, layout: RowLayout, batch_size: int) -> tf.data.Dataset:
    """Packed rows -> batches of exactly `batch_size`; rows that fill no batch are left over.

    Several batches are unpacked by one call: at 512 rows a batch, calls cost more than bytes.

    Args:
        rows: int32 [n, row_words], whatever n.
        layout: of the rows.
        batch_size: in rows.
    """
    together = max(1, _UNPACKED_TOGETHER // batch_size)
    # TensorFlow's unbatch crashes on tensors without elements: those are put back behind it.
    absent = {s.key: s for s in layout.sections if not s.words}

    def unpack(several: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            name: tf.reshape(values, [together, batch_size, *values.shape[1:]])
            for name, values in layout.unpack(several).items()
            if name not in absent
        }

    def complete(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        none = {n: tf.zeros([batch_size, *s.shape], s.dtype) for n, s in absent.items()}
        return {**batch, **none}

    several = rows.rebatch(together * batch_size, drop_remainder=True)
    batches = several.map(unpack, num_parallel_calls=2).unbatch()
    return batches.map(complete, num_parallel_calls=2) if absent else batches


def training_batches(
    data: DataDirectory, *, batch_size: int, seed: int, epoch: int, first_step: int = 0
) -> tf.data.Dataset:
    """Batches of exactly `batch_size` rows for one epoch, shuffled by (seed, epoch).

    The last batch is topped up with real rows of weight 0: no row is dropped, the loss stays exact and
    batch statistics never see a tiny batch.

    Args:
        data: a data directory with a train split.
        batch_size: global batch size, in rows.
        seed: of the whole run.
        epoch: counted from 0.
        first_step: batches of this epoch that were already consumed.

    Returns:
        A dataset of `steps_per_epoch - first_step` dicts as described in `pipeline.records.encoded`.
    """
    layout = RowLayout.of(data.spec)
    files = data.files("train")
    order = np.random.default_rng([seed, epoch]).permutation(len(files))
    names = tf.data.Dataset.from_tensor_slices([files[i] for i in order])
    records = _decode(names, data, cycle_length=min(_CYCLE_LENGTH, len(files)))

    def permute(window: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        key = tf.stack([tf.cast(seed, tf.int64) * 1_000_003 + epoch, window])
        index = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(rows)[0]), seed=key)
        return tf.gather(rows, index)

    windows = records.rebatch(_WINDOW_ROWS).enumerate().map(permute, num_parallel_calls=2)
    weight = layout.column("weight")

    def without_weight(rows: tf.Tensor) -> tf.Tensor:
        zero = tf.zeros_like(rows[:, weight : weight + 1])  # int32 0 is float32 0.0
        return tf.concat([rows[:, :weight], zero, rows[:, weight + 1 :]], axis=1)

    filler = windows.map(without_weight).repeat()
    steps = steps_per_epoch(data, batch_size)
    batches = unpacked_batches(windows.concatenate(filler), layout, batch_size)
    return batches.take(steps).skip(first_step).with_options(_options()).prefetch(4)


def evaluation_batches(data: DataDirectory, split: str, batch_size: int) -> tf.data.Dataset:
    """Every row of a split once, in file order; the last batch may be smaller."""
    layout = RowLayout.of(data.spec)
    names = tf.data.Dataset.from_tensor_slices(data.files(split))
    batches = _decode(names, data, cycle_length=1).rebatch(batch_size)
    return batches.map(layout.unpack, num_parallel_calls=2).with_options(_options()).prefetch(4)


@contextlib.contextmanager
def naming_damaged_shards(data: DataDirectory) -> Iterator[None]:
    """While batches are read: TensorFlow's error for bytes that are not as written names no file.

    Raises:
        DataError: shards whose checksums are wrong, the first three by name.
    """
    try:
        yield
    except tf.errors.DataLossError:
        files = (file for split in SPLITS if data.num_rows(split) for file in data.files(split))
        found = [f"{file}: {reason}" for file in files if (reason := _damage(file))]
        if not found:
            raise
        raise damaged("; ".join(found[:3])) from None


def _damage(file: str) -> str | None:
    """What is wrong with a TFRecord file, in words."""
    try:
        for _ in tf.data.TFRecordDataset(file):
            pass
    except tf.errors.DataLossError as error:
        return reason_of(error)
    return None
