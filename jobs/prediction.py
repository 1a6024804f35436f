"""Raw rows of files, asked of a running server in file order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.input_listing import list_inputs
from pipeline.schema import (
    CategoricalFeature,
    CsvFormat,
    FeatureSchema,
    JsonLinesFormat,
    LabelSpec,
    NumericFeature,
    ParquetFormat,
)
from pipeline.sources import plan_blocks, read_block
from serving.client.client import PredictClient, columns_from_table
from serving.export.batch_sizes import MAX_BATCH_SIZE

__all__ = ["Answers", "predict_files"]

_ENDINGS = {".parquet": ParquetFormat(), ".jsonl": JsonLinesFormat(), ".json": JsonLinesFormat()}


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a server said of every row, in file order; arrays [rows]."""

    probability: np.ndarray
    logit: np.ndarray


def predict_files(
    address: str,
    name: str,
    files: Sequence[str],
    *,
    protocol: Literal["grpc", "rest"] = "grpc",
    schema: str | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
) -> Answers:
    """Asks for every row of the files.

    Args:
        address: host:port of the server.
        name: of the model.
        files: read in the order given.
        protocol: "grpc" or "rest".
        schema: of the files; None: text with a header, Parquet or JSON Lines by a file's ending.
        limit: only the first rows.
        batch_size: rows a request; None: as many as a server with our batching file takes.

    Raises:
        ConfigError: a row cannot be read, or the server has no such model.
    """
    if limit is not None and limit < 1:
        raise ConfigError("--rows must be at least 1", limit)
    if batch_size is not None and batch_size < 1:
        raise ConfigError("--batch-size must be at least 1", batch_size)
    probability, logit = [np.zeros(0)], [np.zeros(0)]
    size = batch_size or MAX_BATCH_SIZE
    with PredictClient(address, name, protocol=protocol, max_batch_size=size) as client:
        for table in _tables(files, client.input_dtypes, schema, limit):
            answer = client.predict(columns_from_table(table, client.input_dtypes))
            probability.append(answer["probability"])
            logit.append(answer["logit"])
    return Answers(np.concatenate(probability), np.concatenate(logit))


def _tables(
    files: Sequence[str], inputs: dict[str, np.dtype], schema_path: str | None, limit: int | None
) -> Iterator[pa.Table]:
    """The rows of the files, columns named as the model's inputs, a block at a time."""
    schema = (
        FeatureSchema.load(schema_path).inputs_only()
        if schema_path
        else _schema_of(files[0], inputs)
    )
    left = limit if limit is not None else 2**62
    # A file at a time, in the order asked for: a plan over all would sort them by path.
    plans = [plan_blocks(schema, list_inputs([path])) for path in files]
    for block, resolved in [(b, plan.schema) for plan in plans for b in plan.blocks]:
        for chunk in read_block(block, resolved):
            if chunk.rejects:
                reject = chunk.rejects[0]
                raise ConfigError(
                    "every row must be readable",
                    f"{reject.file}, offset {reject.offset}: {reject.reason}",
                    "Remove the row; a row without an answer would shift all others.",
                )
            table = chunk.table[:left]
            left -= table.num_rows
            names = [FeatureSchema.input_name(c) for c in table.column_names]
            if table.num_rows:
                yield table.rename_columns(names).select([n for n in names if n in inputs])
        if left <= 0:
            return


def _schema_of(path: str, inputs: dict[str, np.dtype]) -> FeatureSchema:
    """A schema for reading only: the model's inputs as columns of a self-describing file."""
    ending = next((e for e in _ENDINGS if path.endswith(e)), "")
    features = tuple(
        CategoricalFeature(name=n, column=n)
        if kind == np.dtype(object)
        else NumericFeature(name=n, column=n)
        for n, kind in inputs.items()
    )
    source = _ENDINGS.get(ending, CsvFormat())
    label = LabelSpec(column="(none)")
    schema = FeatureSchema(name="input", source=source, label=label, features=features)
    return schema.inputs_only()
