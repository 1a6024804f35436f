"""Which rows of a split hang together by time: those of one hour of a week, or whatever is kept of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.records.data_directory import DataDirectory
from pipeline.schema import DatetimeFeature
from pipeline.schema.features import encoded_names

__all__ = ["LEAST_CLUSTERS", "time_clusters"]

LEAST_CLUSTERS = 5  # Student's t over fewer is so wide that it says nothing
_BATCH_ROWS = 32_768


def time_clusters(data: DataDirectory, split: str) -> NDArray[np.int64] | None:
    """A number a row, equal where the parts that are encoded of the schema's time column are.

    Args:
        data: the data directory.
        split: train, validation or test.

    Returns:
        [rows] in file order; None where the schema names no time column, encodes no part of it, or the
        split spans fewer than LEAST_CLUSTERS.
    """
    from pipeline.records.dataset import evaluation_batches

    schema, names = data.schema, [feature.name for feature in data.spec.categorical]
    time = None if schema.time is None else schema.time.column
    columns = [
        names.index(name)
        for feature in schema.features
        if isinstance(feature, DatetimeFeature) and feature.column == time
        for name in encoded_names(feature)
        if name in names
    ]
    if not columns:
        return None
    sizes = [data.spec.categorical[i].vocab_size for i in columns]
    parts = [
        np.ravel_multi_index(tuple(batch["ids"].numpy()[:, i] for i in columns), sizes)
        for batch in evaluation_batches(data, split, _BATCH_ROWS)
    ]
    codes = np.unique(np.concatenate(parts), return_inverse=True)[1]
    return codes.astype(np.int64) if codes.max(initial=0) + 1 >= LEAST_CLUSTERS else None
