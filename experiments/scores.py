"""Scored rows of a split: what a cell leaves and a comparison reads."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import ConfigError
from pipeline.step_directory import write_atomically

__all__ = ["Rows", "Scores", "rows_of"]

_CLUSTER = "cluster/"


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """A split's rows without any model's answer, in file order.

    Attributes:
        label: float32 [rows], 0 or 1.
        weight: float32 [rows].
        clusters: by key (user, time, a carried column), int32 [rows]: equal numbers belong together.
        truth: float64 [rows], the true click probabilities; None where the data does not carry them.
    """

    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    clusters: Mapping[str, NDArray[np.int32]] = dataclasses.field(default_factory=dict)
    truth: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.label)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of labels, weights and true probabilities: equal for equal rows."""
        digest = hashlib.sha256()
        for column in (self.label, self.weight, *([] if self.truth is None else [self.truth])):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:16]

    def take(self, rows: NDArray[np.bool_]) -> Rows:
        """The rows that a mask [rows] chooses."""
        clusters = {key: codes[rows] for key, codes in self.clusters.items()}
        truth = None if self.truth is None else self.truth[rows]
        return Rows(self.label[rows], self.weight[rows], clusters, truth)

    def save(self, path: Path) -> None:
        """Writes one .npz, whole or not at all."""
        arrays: dict[str, NDArray] = {"label": self.label, "weight": self.weight}
        arrays |= {_CLUSTER + key: codes for key, codes in self.clusters.items()}
        if self.truth is not None:
            arrays["truth"] = self.truth
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Rows:
        """What `save` wrote."""
        with np.load(path) as arrays:
            clusters = {
                key.removeprefix(_CLUSTER): arrays[key]
                for key in arrays.files
                if key.startswith(_CLUSTER)
            }
            truth = arrays["truth"] if "truth" in arrays.files else None
            return cls(arrays["label"], arrays["weight"], clusters, truth)


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """One training's answers for the rows of a split.

    Attributes:
        rows: what was scored.
        logits: float [rows], calibrated.
        raw: float [rows], as the model gave them.
    """

    rows: Rows
    logits: NDArray[np.floating]
    raw: NDArray[np.floating]

    @classmethod
    def of(
        cls,
        label: ArrayLike,
        logits: ArrayLike,
        weight: ArrayLike | None = None,
        clusters: Mapping[str, ArrayLike] | None = None,
    ) -> Scores:
        """Of arrays [rows] from anywhere (a published model, a simulation)."""
        labels, z = np.asarray(label, np.float32), np.asarray(logits)
        weights = np.ones(len(labels)) if weight is None else weight
        codes = {
            key: np.unique(np.asarray(values), return_inverse=True)[1].astype(np.int32)
            for key, values in (clusters or {}).items()
        }
        return cls(Rows(labels, np.asarray(weights, np.float32), codes), z, z)

    def take(self, rows: NDArray[np.bool_]) -> Scores:
        """The rows that a mask [rows] chooses: a segment."""
        return Scores(self.rows.take(rows), self.logits[rows], self.raw[rows])


def rows_of(*sides: Scores) -> Rows:
    """The rows that all of them scored.

    Raises:
        ConfigError: they are not the same.
    """
    first = sides[0].rows
    for other in (side.rows for side in sides[1:]):
        if other is not first and other.fingerprint != first.fingerprint:
            raise ConfigError(
                "scores are compared on the same rows",
                f"{len(first):,} rows ({first.fingerprint}) against "
                f"{len(other):,} rows ({other.fingerprint})",
                "Score both on one split of one data directory.",
            )
    return first
