"""Rows whose values the job cannot use: label, weight, time and split are checked, texts and images too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.paths import open_for_reading
from pipeline.schema import CsvFormat, FeatureSchema, ImageColumn, JsonLinesFormat
from pipeline.values import parse_time

__all__ = ["bad_rows", "load_images"]

Refuse = Callable[[np.ndarray, str], None]


def bad_rows(table: pa.Table, schema: FeatureSchema) -> dict[int, str]:
    """Row -> reason, for each row that cannot be used; in row order."""
    good = np.ones(table.num_rows, dtype=bool)
    reasons: dict[int, str] = {}

    def refuse(mask: np.ndarray, reason: str) -> None:
        for i in np.flatnonzero(mask & good):
            reasons[int(i)] = reason
        good[mask] = False

    if not isinstance(schema.source, (CsvFormat, JsonLinesFormat)):  # checked with the lines there
        for name in (*schema.input_texts, schema.split.key, schema.split.column):
            if name is not None:
                refuse(_not_utf8(table[name]), f"{name} is not UTF-8")
    _check_label(table, schema, refuse)
    if schema.weight is not None:
        weight = table[schema.weight].to_numpy()
        usable = np.isfinite(weight) & (weight >= 0)
        refuse(~usable, f"weight {schema.weight} is negative or missing")
    split = schema.split
    if split.by == "time" and schema.time is not None:
        refuse(_not_utf8(table[schema.time.column]), f"{schema.time.column} is not UTF-8")
        safe = table.filter(pa.array(good))[schema.time.column]
        fits = np.ones(table.num_rows, dtype=bool)
        fits[good] = np.asarray(pc.is_valid(parse_time(safe, schema.time.format)))
        refuse(~fits, f"time {schema.time.column} does not fit {schema.time.format}")
    if split.by == "column":
        allowed = pa.array([b"train", b"validation", b"test"])
        known = np.asarray(pc.is_in(table[split.column], value_set=allowed))
        refuse(~known, f"{split.column} is none of train, validation, test")
    for feature in schema.features:
        if isinstance(feature, ImageColumn):
            _check_images(table[feature.column], feature, refuse)
    return dict(sorted(reasons.items()))


def _check_label(table: pa.Table, schema: FeatureSchema, refuse: Refuse) -> None:
    label = schema.label
    if label.column is not None:
        values = table[label.column].to_numpy()
        refuse(np.isnan(values), f"label {label.column} is missing")
        refuse((values != 0) & (values != 1), f"label {label.column} is neither 0 nor 1")
    elif label.clicks is not None and label.impressions is not None:
        clicks, shown = table[label.clicks].to_numpy(), table[label.impressions].to_numpy()
        refuse(np.isnan(clicks) | np.isnan(shown), "clicks or impressions are missing")
        refuse(~np.isfinite(shown), "impressions must be finite")
        refuse(~((clicks >= 0) & (clicks <= shown)), "clicks must lie between 0 and impressions")
        refuse(shown == 0, "impressions must be above 0")


def _not_utf8(column: pa.ChunkedArray) -> np.ndarray:
    """Mask of the values that are not UTF-8; bool [n]."""
    try:
        pc.cast(column, pa.string())
    except pa.ArrowInvalid:
        return np.array([not _is_utf8(value) for value in column.to_pylist()])
    return np.zeros(len(column), bool)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_images(column: pa.ChunkedArray, feature: ImageColumn, refuse: Refuse) -> None:
    """Decodes each image once, so that a damaged one is a reject and not the end of the job."""
    import tensorflow as tf

    bad = np.zeros(len(column), bool)
    for i, data in enumerate(column.to_pylist()):
        try:
            if data:
                tf.io.decode_image(data, channels=feature.channels, expand_animations=False)
        except tf.errors.InvalidArgumentError:
            bad[i] = True
    refuse(bad, f"image {feature.column} cannot be decoded")


def load_images(table: pa.Table, schema: FeatureSchema) -> tuple[pa.Table, dict[int, str]]:
    """Replaces paths of images by their bytes; (table, {row: reason}) where a file cannot be read."""
    reasons: dict[int, str] = {}
    for name in dict.fromkeys(
        f.column for f in schema.features if isinstance(f, ImageColumn) and f.is_path
    ):
        contents: list[bytes] = []
        for i, path in enumerate(table[name].to_pylist()):
            try:
                contents.append(_read(path.decode()) if path else b"")
            except (OSError, ValueError) as error:  # ValueError: not a path, or of no known scheme
                contents.append(b"")
                reasons[i] = f"image {name} cannot be read: {type(error).__name__}"
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(contents, pa.binary()))
    return table, reasons


def _read(path: str) -> bytes:
    with open_for_reading(path) as stream:
        return stream.read()
