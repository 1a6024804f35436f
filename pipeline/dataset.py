"""TFRecord shards -> tf.data batches of encoded tensors, at memory speed.

Shards were shuffled globally when they were written. An epoch permutes the order of the shards,
interleaves them and permutes rows inside a window; all three follow from (seed, epoch), so a position
in the data is fully described by (seed, epoch, step) and an input is rebuilt from it after a restart.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from pipeline.data_directory import DataDirectory
from pipeline.records import RowLayout

__all__ = ["evaluation_batches", "steps_per_epoch", "training_batches"]

_WINDOW_ROWS = 1 << 16  # rows permuted together: 65,536 rows of 45 words are 12 MB
_CYCLE_LENGTH = 4
_EXAMPLES_AT_ONCE = 1024


def steps_per_epoch(data: DataDirectory, batch_size: int) -> int:
    """Steps that show every training row once: ceil(rows / batch_size)."""
    return -(-data.num_rows("train") // batch_size)


def _decode(files: tf.data.Dataset, data: DataDirectory, *, cycle_length: int) -> tf.data.Dataset:
    """File names -> int32 [n, row_words] a record, in an order that depends on the file order only."""
    layout = RowLayout.of(data.spec)

    def rows_of(file: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(file)
        if data.layout == "examples":
            from pipeline.examples_layout import rows_from_examples

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
        A dataset of `steps_per_epoch - first_step` dicts as described in `pipeline.encoded`.
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
    batches = windows.concatenate(filler).rebatch(batch_size, drop_remainder=True).take(steps)
    batches = batches.skip(first_step).map(layout.unpack, num_parallel_calls=2)
    return batches.with_options(_options()).prefetch(4)


def evaluation_batches(data: DataDirectory, split: str, batch_size: int) -> tf.data.Dataset:
    """Every row of a split once, in file order; the last batch may be smaller."""
    layout = RowLayout.of(data.spec)
    names = tf.data.Dataset.from_tensor_slices(data.files(split))
    batches = _decode(names, data, cycle_length=1).rebatch(batch_size)
    return batches.map(layout.unpack, num_parallel_calls=2).with_options(_options()).prefetch(4)
