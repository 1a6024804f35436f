"""Arrow columns -> the NumPy matrices that the transform takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.schema import FeatureSchema
from pipeline.sources.columns import as_float32

__all__ = ["number_matrix", "raw_matrices", "text_matrix"]


def number_matrix(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """float32 [n, len(columns)], NaN where missing."""
    numbers = np.empty((table.num_rows, len(columns)), np.float32)
    for i, name in enumerate(columns):
        numbers[:, i] = as_float32(table[name])
    return numbers


def text_matrix(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """Object [n, len(columns)] of bytes, empty where missing."""
    texts = np.empty((table.num_rows, len(columns)), object)
    for i, name in enumerate(columns):
        texts[:, i] = table[name].to_numpy(zero_copy_only=False)
    return texts


def raw_matrices(
    table: pa.Table, schema: FeatureSchema
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The numbers, texts and images that `FeatureTransform.encode_numpy` takes."""
    images = {n: table[n].to_numpy(zero_copy_only=False) for n in schema.input_images}
    numbers = number_matrix(table, schema.input_numbers)
    return numbers, text_matrix(table, schema.input_texts), images
