"""What reading gives: chunks of good rows, and the rows that could not be read."""

from __future__ import annotations

import base64
import dataclasses

import numpy as np
import pyarrow as pa

from pipeline.schema import FeatureSchema

__all__ = ["Chunk", "Parsed", "Reject", "empty_table"]


@dataclasses.dataclass(frozen=True)
class Reject:
    """An input row that could not be read.

    Attributes:
        file: its path.
        offset: of its first byte in a text file (of the unpacked text when gzipped); the number of the
            row, counted from 0, in Parquet and TFRecord files.
        reason: what is wrong with it: a rule that many rows may break, a colon, the particulars.
        raw: its bytes.
        rows: how many rows it stands for; more than 1 for a damaged row group.
    """

    file: str
    offset: int
    reason: str
    raw: bytes = b""
    rows: int = 1

    @property
    def kind(self) -> str:
        """The reason without its particulars, to be counted by."""
        return self.reason.split(": ", 1)[0][:120]

    def to_json(self) -> dict[str, object]:
        """A JSON object; bytes that are not UTF-8 go in as base64."""
        entry: dict[str, object] = {"file": self.file, "offset": self.offset, "reason": self.reason}
        try:
            entry["raw"] = self.raw.decode("utf-8")
        except UnicodeDecodeError:
            entry["raw_base64"] = base64.b64encode(self.raw).decode("ascii")
        if self.rows != 1:
            entry["rows"] = self.rows
        return entry


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a block.

    Attributes:
        table: the good rows; the columns are `schema.columns`.
        row: position of each good row in its block, int64 [table.num_rows]. A rejected row keeps its
            position, so mending one changes the fate of no other.
        num_rows: input rows, good and rejected.
        rejects: the rejected ones.
    """

    table: pa.Table
    row: np.ndarray
    num_rows: int
    rejects: list[Reject]


@dataclasses.dataclass(frozen=True)
class Parsed:
    """Consecutive rows of a block as a file format's reader gives them; values not yet checked.

    Attributes:
        table: the rows that could be parsed.
        row: position of each of them among these rows, int64 [table.num_rows].
        num_rows: rows, parsed and rejected.
        rejects: the rejected ones.
        offset: of each parsed row, as `Reject.offset`; int64 [table.num_rows].
        data, starts, ends: where the bytes of each parsed row lie; None for binary formats.
    """

    table: pa.Table
    row: np.ndarray
    num_rows: int
    rejects: list[Reject]
    offset: np.ndarray
    data: bytes | None = None
    starts: np.ndarray | None = None
    ends: np.ndarray | None = None

    def raw_of(self, i: int) -> bytes:
        """The bytes of the i-th parsed row; of a binary format, its values written out."""
        if self.data is None or self.starts is None or self.ends is None:
            return repr(self.table.slice(i, 1).to_pylist()[0]).encode()[:4096]
        return self.data[int(self.starts[i]) : int(self.ends[i])].removesuffix(b"\r")


def empty_table(schema: FeatureSchema) -> pa.Table:
    """No rows of the schema's columns, typed."""
    numbers = set(schema.number_columns)
    fields = [(c, pa.float64() if c in numbers else pa.binary()) for c in schema.columns]
    return pa.schema(fields).empty_table()
