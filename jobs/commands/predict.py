"""`clickparity predict`: scores the raw rows of files with a running server."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import ConfigError
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

__all__ = ["main"]

_ENDINGS = {".parquet": ParquetFormat(), ".jsonl": JsonLinesFormat(), ".json": JsonLinesFormat()}


def main(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Asks for every row, in file order; one probability a line."""
    if arguments.rows is not None and arguments.rows < 1:
        raise ConfigError("--rows must be at least 1", arguments.rows)
    answers: dict[str, list[np.ndarray]] = {"probability": [], "logit": []}
    with PredictClient(arguments.address, arguments.name, protocol=arguments.protocol) as client:
        for table in _tables(arguments, client.input_dtypes):
            answer = client.predict(columns_from_table(table, client.input_dtypes))
            for name, values in answers.items():
                values.append(answer[name])
    probability = np.concatenate(answers["probability"] or [np.zeros(0)])
    result = {
        "rows": len(probability),
        "probability": probability.tolist(),
        "logit": np.concatenate(answers["logit"] or [np.zeros(0)]).tolist(),
    }
    return result, "\n".join(f"{p:.9g}" for p in probability)


def _tables(arguments: argparse.Namespace, inputs: dict[str, np.dtype]) -> Iterator[pa.Table]:
    """The rows of the files, columns named as the model's inputs, a block at a time."""
    if arguments.schema:
        schema = FeatureSchema.load(arguments.schema).inputs_only()
    else:
        schema = _schema_of(arguments.input[0], inputs)
    left = arguments.rows if arguments.rows is not None else 2**62
    # A file at a time, in the order asked for: a plan over all would sort them by path.
    plans = [plan_blocks(schema, [path]) for path in arguments.input]
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
