"""A preprocessed data set as a directory: what `clickparity preprocess` leaves and everyone reads.

    DATA_DIR/
      schema.yaml        the resolved FeatureSchema
      statistics/        FeatureStatistics: statistics.json, vocabulary/<feature>.csv
      spec.json          the EncodedSpec of every row
      train|validation|test/part-00000-of-00004.tfrecord
      parity_sample/     a few raw rows beside their encoded tensors, for the parity checks
      rejects/*.jsonl    rows that could not be read: file, offset, reason, raw
      summary.json       where every input row went; the size of every file above but the rejects
      _SUCCESS           the fingerprint; written last

Reading it needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, DataError
from pipeline.records.encoded import EncodedSpec

__all__ = ["SPLITS", "DataDirectory", "damaged", "shard_name"]

SPLITS = ("train", "validation", "test")


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def shard_name(shard: int, num_shards: int) -> str:
    """The file name of a shard inside its split's folder."""
    return f"part-{shard:05d}-of-{num_shards:05d}.tfrecord"


def damaged(received: str) -> DataError:
    """The error for a data directory that has lost or changed a file since it was written."""
    return DataError(
        "a data directory must be as preprocess wrote it",
        received,
        "Copy the directory again, or delete it and preprocess again.",
    )


@dataclasses.dataclass(frozen=True)
class DataDirectory:
    """A finished data directory. Open it with `DataDirectory.open`.

    Attributes:
        path: the directory.
        fingerprint: of schema, preprocessing options and input files together.
        summary: the contents of summary.json.
    """

    path: Path
    fingerprint: str
    summary: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> DataDirectory:
        """Opens a finished directory.

        Raises:
            ConfigError: `path` is not a finished data directory.
            DataError: a file is missing or has another size than it was written with: of a shard that
                is cut between two records fewer rows would be read, in silence.
        """
        path = Path(path)
        try:
            fingerprint = (path / "_SUCCESS").read_text().strip()
            summary = json.loads((path / "summary.json").read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                "a data directory must be finished (have _SUCCESS and summary.json)",
                f"{path} ({type(error).__name__})",
                "Make it with: clickparity preprocess --schema NAME --input GLOB --out DIR.",
            ) from None
        # Directories that earlier versions wrote do not tell the sizes.
        wrong = [
            f"{path / name} {f'with {found:,} bytes for {size:,}' if found is not None else 'missing'}"
            for name, size in summary.get("files", {}).items()
            if (found := _size(path / name)) != size
        ]
        if wrong:
            raise damaged("; ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" * (len(wrong) > 3)))
        return cls(path, fingerprint, summary)

    @functools.cached_property
    def spec(self) -> EncodedSpec:
        """The shapes of the encoded tensors."""
        return EncodedSpec.from_json((self.path / "spec.json").read_text())

    @functools.cached_property
    def schema(self) -> Any:
        """The resolved `pipeline.schema.FeatureSchema`."""
        from pipeline.schema import FeatureSchema

        schema = FeatureSchema.load(self.path / "schema.yaml")
        # A directory of an earlier version took texts as they were written, and so must its transform.
        rules = self.summary.get("value_rules", 1)
        return schema if schema.rules == rules else schema.model_copy(update={"rules": rules})

    def files(self, split: str) -> list[str]:
        """The shards of a split, in order.

        Raises:
            ConfigError: no such split, or it has no rows.
        """
        if split not in SPLITS:
            raise ConfigError(f"split must be one of {', '.join(SPLITS)}", repr(split))
        if not self.num_rows(split):
            raise ConfigError(
                f"the {split} split must have rows",
                f"0 rows in {self.path / split}",
                "Give it a share in the schema's `split`, or preprocess more data.",
            )
        num_shards = int(self.summary["splits"][split]["shards"])
        return [str(self.path / split / shard_name(i, num_shards)) for i in range(num_shards)]

    @property
    def layout(self) -> str:
        """How the shards hold their rows: `packed`, or `examples` (one tf.Example a row)."""
        return str(self.summary.get("layout", "packed"))

    def num_rows(self, split: str) -> int:
        """Encoded rows in a split."""
        return int(self.summary["splits"][split]["rows"])

    def label_rate(self, split: str) -> float:
        """Weighted share of clicks in a split, as written (after down-sampling)."""
        return float(self.summary["splits"][split]["label_rate"])

    @property
    def negative_keep_rate(self) -> float:
        """Share of the negative training rows that were kept; 1 without down-sampling."""
        return float(self.summary["negative_keep_rate"])
