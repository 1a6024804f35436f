"""Arrow columns -> the NumPy matrices that the transform takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipeline.schema import FeatureSchema
from pipeline.sources.columns import as_float32

__all__ = ["RawRows", "number_matrix", "raw_matrices", "text_matrix"]


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


@dataclasses.dataclass(frozen=True)
class RawRows:
    """Raw rows as the served graph takes them.

    Attributes:
        schema: their schema.
        numbers: float32 [n, N]; texts: object [n, T] of bytes; images: object [n] by column.
    """

    schema: FeatureSchema
    numbers: np.ndarray
    texts: np.ndarray
    images: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, index: np.ndarray | slice) -> RawRows:
        """Some of the rows."""
        images = {name: values[index] for name, values in self.images.items()}
        return RawRows(self.schema, self.numbers[index], self.texts[index], images)

    def by_name(self) -> dict[str, np.ndarray]:
        """Inputs of `serving_default`."""
        named = dict(self._columns())
        names = self.schema.input_names
        return {names[column]: values for column, values in named.items()}

    def compact(self) -> dict[str, np.ndarray]:
        """Inputs of `compact` and `encode`."""
        inputs: dict[str, np.ndarray] = {}
        if self.schema.input_numbers:
            inputs["numbers"] = self.numbers
        if self.schema.input_texts:
            inputs["texts"] = self.texts
        for column, values in self.images.items():
            inputs[self.schema.image_input_name(column)] = values
        return inputs

    def examples(self) -> dict[str, np.ndarray]:
        """Inputs of `serialized_examples`; missing values are left out of the Examples."""
        import tensorflow as tf

        columns = list(self._columns())
        serialized = []
        for i in range(len(self)):
            example = tf.train.Example()
            for name, values in columns:
                value = values[i]
                if isinstance(value, bytes):
                    if value:
                        example.features.feature[name].bytes_list.value.append(value)
                elif not np.isnan(value):
                    example.features.feature[name].float_list.value.append(value)
            serialized.append(example.SerializeToString())
        return {"examples": np.array(serialized, object)}

    def _columns(self) -> Iterator[tuple[str, np.ndarray]]:
        for i, column in enumerate(self.schema.input_numbers):
            yield column, self.numbers[:, i]
        for i, column in enumerate(self.schema.input_texts):
            yield column, self.texts[:, i]
        yield from self.images.items()
