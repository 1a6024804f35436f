"""Raw rows of files, asked of a running server in file order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError
from pipeline.input_listing import list_inputs
from pipeline.paths import open_for_reading
from pipeline.schema import (
    CrossFeature,
    CsvFormat,
    ExamplesFormat,
    FeatureSchema,
    JsonLinesFormat,
    LabelSpec,
    NumericFeature,
    ParquetFormat,
    SequenceColumn,
    plain_name,
)
from pipeline.sources import InputPlan, plan_blocks, read_block
from pipeline.values.lists import ITEM_MARK
from serving.client.client import PredictClient, columns_from_table
from serving.export.batch_sizes import MAX_BATCH_SIZE

__all__ = ["Answers", "predict_files"]

FileFormat = CsvFormat | ParquetFormat | JsonLinesFormat | ExamplesFormat
_ENDINGS: dict[str, FileFormat] = {
    ".parquet": ParquetFormat(),
    ".jsonl": JsonLinesFormat(),
    ".json": JsonLinesFormat(),
}


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
        schema: of the files; None: text with a header, Parquet or JSON Lines by a file's ending, read as
            the model says that it was trained (its signature `schema`).
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
        layouts = _layouts(files[0], client, schema)
        for table in _tables(files, client, layouts, limit):
            answer = client.predict(columns_from_table(table, client.input_dtypes))
            probability.append(answer["probability"])
            logit.append(answer["logit"])
    return Answers(np.concatenate(probability), np.concatenate(logit))


@dataclasses.dataclass(frozen=True)
class _Layout:
    """One way in which the files may be laid out.

    Attributes:
        schema: to read them by.
        names: raw column -> input of the model.
        guessed: the model does not say how it reads lists and times.
    """

    schema: FeatureSchema
    names: dict[str, str]
    guessed: bool = False


def _layouts(path: str, client: PredictClient, schema: str | None) -> list[_Layout]:
    """What to try in turn: the user's schema, or the model's own with the file's format."""
    inputs, served = client.input_dtypes, client.schema
    if schema is not None:
        named = FeatureSchema.load(schema).inputs_only()
        if served is not None:
            named = named.model_copy(update={"rules": served.rules})
        names = named.input_names
        if not set(inputs) <= set(names.values()):  # a model that names its inputs by column
            names = {column: plain_name(column) for column in named.columns}
        return [_Layout(named, names)]
    ending = next((e for e in _ENDINGS if path.endswith(e)), "")
    source = _ENDINGS.get(ending, CsvFormat())
    if served is None:
        return [_Layout(_undescribed(source, inputs), {name: name for name in inputs}, True)]
    sources = [source]
    if not ending and isinstance(served.source, CsvFormat) and served.source.header:
        sources = [served.source, source]
    by_column = served.inputs_only()
    by_input = _named_by_input(by_column)
    return [
        _Layout(s.model_copy(update={"source": one}), s.input_names)
        for one in sources
        for s in (by_column, by_input)
    ]


def _named_by_input(schema: FeatureSchema) -> FeatureSchema:
    """The same for a file whose columns are named as the model's inputs are."""
    names = schema.input_names
    features = [
        f.model_copy(update={"of": tuple(names[c] for c in f.of)})
        if isinstance(f, CrossFeature)
        else f.model_copy(update={"column": names[f.column]})
        for f in schema.features
    ]
    return schema.model_copy(update={"features": tuple(features)})


def _undescribed(source: FileFormat, inputs: dict[str, np.dtype]) -> FeatureSchema:
    """A schema for reading only, of a model that says its inputs' names and types and no more."""
    features = tuple(
        # A typed list shows by the mark between its items, see `_refuse_guesses`.
        SequenceColumn(name=n, column=n, separator=ITEM_MARK)
        if kind == np.dtype(object)
        else NumericFeature(name=n, column=n)
        for n, kind in inputs.items()
    )
    label = LabelSpec(column="(none)")
    schema = FeatureSchema(name="input", source=source, label=label, features=features, rules=1)
    return schema.inputs_only()


def _tables(
    files: Sequence[str], client: PredictClient, layouts: Sequence[_Layout], limit: int | None
) -> Iterator[pa.Table]:
    """The rows of the files, columns named as the model's inputs, a block at a time."""
    left = limit if limit is not None else 2**62
    # A file at a time, in the order asked for: a plan over all would sort them by path.
    plans = [_plan(path, layouts) for path in files]
    for block, resolved, layout in [(b, p.schema, way) for p, way in plans for b in p.blocks]:
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
            if table.num_rows:
                wanted = [c for c in table.column_names if layout.names[c] in client.input_dtypes]
                table = table.select(wanted).rename_columns([layout.names[c] for c in wanted])
                if layout.guessed:
                    _refuse_guesses(table, block.path)
                yield table
        if left <= 0:
            return


def _plan(path: str, layouts: Sequence[_Layout]) -> tuple[InputPlan, _Layout]:
    """The first layout that the file has the columns of."""
    listing, first = list_inputs([path]), None
    for layout in layouts:
        try:
            plan = plan_blocks(layout.schema, listing)
        except ConfigError as error:
            first = first or error
            continue
        if layout.guessed and isinstance(layout.schema.source, ParquetFormat):
            _refuse_typed(path, layout.names)
        return plan, layout
    raise first or ConfigError("a file must have a layout to be read by", path)


def _refuse_typed(path: str, names: Iterable[str]) -> None:
    """A list or a time of a Parquet file has no text that every model reads alike."""
    import pyarrow.parquet as pq

    with open_for_reading(path) as stream:
        fields = pq.ParquetFile(stream).schema_arrow
    t = pa.types
    for field in fields:
        kind = field.type
        if field.name in names and (t.is_nested(kind) or t.is_timestamp(kind) or t.is_date(kind)):
            raise _unknown_reading(f"column {field.name!r} of {path}, {kind}")


def _refuse_guesses(table: pa.Table, path: str) -> None:
    """A list of a JSON file, likewise."""
    for name in table.column_names:
        column = table[name]
        if (
            pa.types.is_binary(column.type)
            and pc.any(pc.match_substring(column, ITEM_MARK)).as_py()
        ):
            raise _unknown_reading(f"column {name!r} of {path}, a list")


def _unknown_reading(received: str) -> ConfigError:
    return ConfigError(
        "a list or a time is written as the model reads it, and this model does not say how "
        "(it has no signature `schema`)",
        received,
        "Name the schema that it was trained with: --schema FILE (an export holds it as "
        "assets.extra/schema.yaml).",
    )
