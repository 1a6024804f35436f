"""A few raw rows beside their encoded ones: what the parity checks hold an exported graph against."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.errors import DataError
from pipeline.transform.raw_rows import RawRows, raw_matrices

if TYPE_CHECKING:
    from pipeline.records.data_directory import DataDirectory
    from pipeline.records.packed import RowLayout

__all__ = ["collect_samples", "keep_sample", "real_rows"]


def keep_sample(staging: Path, name: str, raw: pa.Table, rows: np.ndarray) -> None:
    """Leaves some rows of a chunk in the staging directory; names sort by where they came from."""
    path = str(staging / "sample" / f"{name}.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, raw.schema) as writer:
        writer.write_table(raw)
    np.save(staging / "sample" / f"{name}.npy", rows)


def collect_samples(staging: Path, layout: RowLayout, limit: int) -> None:
    """Joins what `keep_sample` left into parity_sample/raw.arrow and encoded.tfrecord.

    Raises:
        DataError: no row was kept.
    """
    from pipeline.records.packed import write_packed

    goal = staging / "parity_sample"
    goal.mkdir()
    names = sorted((staging / "sample").glob("*.arrow"))
    tables = [pa.ipc.open_file(str(n)).read_all() for n in names]
    rows = [np.load(n.with_suffix(".npy")) for n in names]
    if not tables:
        raise DataError("the parity sample must have rows", "0", "Preprocess more data.")
    raw, encoded = pa.concat_tables(tables)[:limit], np.concatenate(rows)[:limit]
    path = str(goal / "raw.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, raw.schema) as writer:
        writer.write_table(raw.combine_chunks())
    write_packed(str(goal / "encoded.tfrecord"), layout, encoded)


def real_rows(data: DataDirectory, limit: int) -> tuple[RawRows, dict[str, np.ndarray]]:
    """Up to `limit` held-out raw rows, and their tensors as the Beam job encoded them."""
    from pipeline.records.packed import RowLayout, read_packed

    directory = data.path / "parity_sample"
    table = pa.ipc.open_file(str(directory / "raw.arrow")).read_all()[:limit]
    layout = RowLayout.of(data.spec)
    encoded = layout.unpack_numpy(read_packed(str(directory / "encoded.tfrecord"), layout)[:limit])
    return RawRows(data.schema, *raw_matrices(table, data.schema)), encoded
