"""Which rows of the fused table an id reads: offsets by feature, and fewer rows than ids."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import tensorflow as tf

from models.config.embedding import NO_COMPRESSION, CompressionConfig
from pipeline.errors import ConfigError
from pipeline.records.encoded import MISSING_ID, EncodedSpec

__all__ = ["ColumnRows", "FieldRows", "field_rows"]


@dataclasses.dataclass(frozen=True)
class FieldRows:
    """Which rows of the fused table belong to one feature: [offset, offset + num_rows).

    The first is the missing id's. Then `modulus` rows, one for each other id or, compressed, shared
    by those that agree modulo it; then, with quotients, the missing id's second row and
    `num_quotients` more.

    Attributes:
        name: of the feature that owns the rows.
        offset: the first row.
        num_ids: ids lie in [0, num_ids).
        modulus: of id - 1.
        num_quotients: 0 where an id reads one row.
    """

    name: str
    offset: int
    num_ids: int
    modulus: int
    num_quotients: int = 0

    @classmethod
    def of(cls, name: str, offset: int, num_ids: int, compression: CompressionConfig) -> FieldRows:
        """The rows of a feature, compressed where the config says so."""
        values = num_ids - 1  # without the missing id
        if not compression.applies_to(num_ids):
            return cls(name, offset, num_ids, max(values, 1))
        modulus = compression.rows
        quotients = -(-values // modulus) if compression.kind == "quotient_remainder" else 0
        return cls(name, offset, num_ids, modulus, quotients)

    @property
    def is_compressed(self) -> bool:
        """Whether ids share rows."""
        return self.modulus < self.num_ids - 1

    @property
    def num_rows(self) -> int:
        """How many rows the feature has in the table."""
        if not self.is_compressed:
            return self.num_ids
        return 1 + self.modulus + (1 + self.num_quotients if self.num_quotients else 0)

    @property
    def quotient_offset(self) -> int:
        """The missing id's second row, where there are quotients."""
        return self.offset + 1 + self.modulus


def field_rows(
    spec: EncodedSpec, compression: CompressionConfig = NO_COMPRESSION
) -> dict[str, FieldRows]:
    """The rows of each feature in the fused table, by feature name.

    A sequence whose `vocabulary_of` names another feature shares that feature's rows.

    Args:
        spec: the encoded features.
        compression: of features with huge vocabularies.

    Raises:
        ConfigError: when a sequence shares the vocabulary of a feature that the spec does not hold.
    """
    owners: dict[str, int] = {feature.name: feature.vocab_size for feature in spec.categorical}
    for sequence in spec.sequences:
        if sequence.vocabulary_of == sequence.name:
            owners[sequence.name] = sequence.vocab_size
    for sequence in spec.sequences:
        if sequence.vocabulary_of not in owners:
            raise ConfigError(
                "a sequence shares the vocabulary of a categorical feature or owns one",
                f"{sequence.name!r} shares {sequence.vocabulary_of!r}, which is not there",
                f"Share one of {sorted(owners)}, or preprocess again.",
            )
        owners[sequence.vocabulary_of] = max(owners[sequence.vocabulary_of], sequence.vocab_size)
    rows: dict[str, FieldRows] = {}
    offset = 0
    for name, num_ids in owners.items():
        rows[name] = FieldRows.of(name, offset, num_ids, compression)
        offset += rows[name].num_rows
    for sequence in spec.sequences:
        rows[sequence.name] = rows[sequence.vocabulary_of]
    return rows


class ColumnRows:
    """The way from ids to rows of the table, and from these rows to one embedding an id.

    Args:
        columns: the rows of the feature that each column of ids belongs to.
    """

    def __init__(self, columns: Sequence[FieldRows]) -> None:
        self._offsets = [rows.offset for rows in columns]
        self._moduli = [rows.modulus for rows in columns]
        self._is_compressed = any(rows.is_compressed for rows in columns)
        self._paired = [i for i, rows in enumerate(columns) if rows.num_quotients]
        self._quotient_offsets = [columns[i].quotient_offset for i in self._paired]
        runs = itertools.groupby(columns, key=lambda rows: rows.num_quotients > 0)
        self._runs = [(paired, len(list(run))) for paired, run in runs]

    def rows_of(self, ids: tf.Tensor) -> tf.Tensor:
        """Rows of the table, in one tensor for one gather.

        Args:
            ids: [batch, columns].

        Returns:
            [batch, columns + columns with quotients], the quotients' rows last.
        """
        offsets = tf.constant(self._offsets, ids.dtype)
        if not self._is_compressed:
            return ids + offsets
        is_there = ids > MISSING_ID
        remainders = tf.where(is_there, 1 + (ids - 1) % tf.constant(self._moduli, ids.dtype), 0)
        if not self._paired:
            return remainders + offsets
        moduli = tf.constant([self._moduli[i] for i in self._paired], ids.dtype)
        paired = tf.gather(ids, self._paired, axis=1)
        quotients = tf.where(paired > MISSING_ID, 1 + (paired - 1) // moduli, 0)
        quotients += tf.constant(self._quotient_offsets, ids.dtype)
        return tf.concat([remainders + offsets, quotients], axis=1)

    def combine(self, embedded: tf.Tensor) -> tf.Tensor:
        """One embedding an id: r, or r * (1 + q).

        Args:
            embedded: [batch, columns + columns with quotients, dim], gathered at `rows_of`.

        Returns:
            [batch, columns, dim].
        """
        if not self._paired:
            return embedded
        widths = [width for _, width in self._runs]
        paired_widths = [width for paired, width in self._runs if paired]
        parts = tf.split(embedded, widths + paired_widths, axis=1)
        quotients = iter(parts[len(widths) :])
        combined = [
            part * (1.0 + next(quotients)) if paired else part
            for part, (paired, _) in zip(parts[: len(widths)], self._runs, strict=True)
        ]
        return combined[0] if len(combined) == 1 else tf.concat(combined, axis=1)
