"""The rows that parity is proved on: real ones kept by the preprocessing job, and hostile ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.data_directory import DataDirectory
from pipeline.raw_rows import raw_matrices
from pipeline.records import RowLayout, read_packed
from pipeline.schema import FeatureSchema

__all__ = ["RawRows", "hostile_rows", "real_rows"]

_HOSTILE_TEXTS = (
    b"",
    b" ",
    b"never seen before",
    "ключ-鍵-🔑".encode(),
    "e\u0301 is not \u00e9".encode(),
    b"line\nbreak\r\n",
    b'quote"comma,tab\tpipe|',
    b"\x00nul",
    b"\xff\xfe not utf-8",
    b"x" * 100_000,
    b"0",
    b"-1",
    b"1e400",
    b"nan",
    b"14102100",
    b"99999999",
    b"2019-02-30 25:61:61",
    b"2019-11-24 00:00:17.004101+00:00",
    b"1414022400",
    b"18446744073709551616",
)
_HOSTILE_NUMBERS = (
    float("nan"),
    float("inf"),
    float("-inf"),
    0.0,
    -0.0,
    -1.0,
    1.0,
    3.4028235e38,
    -3.4028235e38,
    1e-45,
    1.17549435e-38,
    16777217.0,
    0.1,
    -2.5,
    1e6,
)


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
        return {self.schema.input_name(column): values for column, values in named.items()}

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


def real_rows(data: DataDirectory, limit: int) -> tuple[RawRows, dict[str, np.ndarray]]:
    """Up to `limit` held-out raw rows, and their tensors as the Beam job encoded them."""
    directory = data.path / "parity_sample"
    table = pa.ipc.open_file(str(directory / "raw.arrow")).read_all()[:limit]
    layout = RowLayout.of(data.spec)
    encoded = layout.unpack_numpy(read_packed(str(directory / "encoded.tfrecord"), layout)[:limit])
    return RawRows(data.schema, *raw_matrices(table, data.schema)), encoded


def hostile_rows(schema: FeatureSchema, like: RawRows) -> RawRows:
    """Rows made to break a transform: everything missing, and each hostile value in every column.

    Args:
        schema: of the rows.
        like: real rows; their values fill the columns that a hostile value does not take.
    """
    num_rows = 2 * max(len(_HOSTILE_TEXTS), len(_HOSTILE_NUMBERS)) + 1
    base = like.take(np.arange(num_rows) % len(like))
    numbers, texts = base.numbers.copy(), base.texts.copy()
    for i in range(num_rows - 1):
        # First half: one hostile value in all columns; second half: a different one in each.
        step = 0 if i < num_rows // 2 else 1
        for j in range(numbers.shape[1]):
            numbers[i, j] = _HOSTILE_NUMBERS[(i + step * j) % len(_HOSTILE_NUMBERS)]
        for j in range(texts.shape[1]):
            texts[i, j] = _HOSTILE_TEXTS[(i + step * j) % len(_HOSTILE_TEXTS)]
    numbers[-1], texts[-1] = np.nan, b""
    return RawRows(schema, numbers, texts, base.images)
