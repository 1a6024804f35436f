"""Labels, weights, clusters and true probabilities of a split, read without any model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.scores import Rows
from pipeline.records.data_directory import DataDirectory
from pipeline.schema import CategoricalFeature, DatetimeFeature
from pipeline.schema.features import encoded_names

__all__ = ["TIME", "TRUTH", "USER", "data_rows", "default_cluster"]

TRUTH = "true_probability"  # the carried column of a synthetic log
USER, TIME = "user", "time"
_BATCH_ROWS = 32_768

_Batch = dict[str, NDArray]


def default_cluster(rows: Rows) -> str | None:
    """What rows of this split hang together by: a user's, else an hour's, else nothing (None)."""
    return next((key for key in (USER, TIME) if key in rows.clusters), None)


def data_rows(data: DataDirectory, split: str) -> Rows:
    """Every row of a split in file order.

    Clusters are the column that `split: {by: key}` keeps together ("user"), the datetime parts of the
    schema's time column together ("time": hour and weekday are the hours of a week), and every carried
    column under its own name. Where only an id is kept of a column, values of one id share a cluster.

    Raises:
        ConfigError: the split has no rows.
        DataError: a shard is damaged.
    """
    from pipeline.records.dataset import evaluation_batches, naming_damaged_shards

    keys = _keys(data)
    parts: dict[str, list[NDArray]] = {name: [] for name in ("label", "weight", *keys)}
    truth: list[NDArray] = []
    with naming_damaged_shards(data):
        for tensors in evaluation_batches(data, split, _BATCH_ROWS):
            names = ("label", "weight", "ids", "carry")
            batch = {name: tensors[name].numpy() for name in names if name in tensors}
            for name in ("label", "weight"):
                parts[name].append(batch[name])
            for name, column in keys.items():
                parts[name].append(column(batch))
            if TRUTH in data.spec.carry:
                truth.append(batch["carry"][:, data.spec.carry.index(TRUTH)])
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return Rows(
        whole["label"],
        whole["weight"],
        {k: np.unique(whole[k], return_inverse=True)[1].astype(np.int32) for k in keys},
        np.concatenate(truth).astype(np.float64) if truth else None,
    )


def _keys(data: DataDirectory) -> dict[str, Callable[[_Batch], NDArray]]:
    """How each cluster key is read from a batch."""
    schema, spec = data.schema, data.spec
    position = {feature.name: i for i, feature in enumerate(spec.categorical)}
    found: dict[str, Callable[[_Batch], NDArray]] = {}

    def column(tensor: str, i: int) -> Callable[[_Batch], NDArray]:
        return lambda batch: batch[tensor][:, i]

    for i, name in enumerate(spec.carry):
        if name != TRUTH:
            found[name] = column("carry", i)
    for feature in schema.features:
        is_user = isinstance(feature, CategoricalFeature) and feature.column == schema.split.key
        if is_user and feature.name in position:
            found[USER] = column("ids", position[feature.name])
    times = [
        position[name]
        for feature in schema.features
        if isinstance(feature, DatetimeFeature)
        and schema.time is not None
        and feature.column == schema.time.column
        for name in encoded_names(feature)
        if name in position
    ]
    if times:
        sizes = [spec.categorical[i].vocab_size for i in times]

        def time_of(batch: _Batch) -> NDArray:
            return np.ravel_multi_index(tuple(batch["ids"][:, i] for i in times), sizes)

        found[TIME] = time_of
    return found
