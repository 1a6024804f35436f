"""A click log in Criteo's layout (label, 13 counts, 26 hashed ids; TSV) for the benchmarks.

The ids of feature k are drawn from a Zipf law (exponent 1.05) cut at CARDINALITIES[k] values: 1 M
distinct values in total. Part i is the same whatever is made beside it.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

CARDINALITIES = (
    *(300_000, 250_000, 150_000, 100_000, 80_000, 50_000, 30_000, 15_000, 10_000, 5_000),
    *(3_000, 2_000, 1_500, 1_000, 800, 600, 400, 300, 150, 100, 60, 40, 20, 15, 10, 5),
)
NUM_NUMERIC = 13
COLUMNS = ("label", *(f"I{i + 1}" for i in range(13)), *(f"C{i + 1}" for i in range(26)))
_EXPONENT = 1.05


def write_log(directory: Path, num_rows: int, rows_per_part: int) -> list[Path]:
    """Writes `num_rows` rows as files of `rows_per_part`; parts that are there already stay."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for part in range(-(-num_rows // rows_per_part)):
        path = directory / f"part-{part:04d}-{rows_per_part}.tsv"
        if not path.exists():
            beside = path.with_suffix(".writing")
            options = pa.csv.WriteOptions(
                include_header=False, delimiter="\t", quoting_style="none"
            )
            pa.csv.write_csv(_part(part, rows_per_part), beside, options)
            beside.rename(path)
        paths.append(path)
    return paths


def _part(part: int, num_rows: int) -> pa.Table:
    rng = np.random.default_rng([7, part])
    columns: list[pa.Array] = [pa.array((rng.random(num_rows) < 0.25).astype(np.int8))]
    for i in range(NUM_NUMERIC):
        counts = np.floor(rng.lognormal(mean=i % 5, sigma=1.5, size=num_rows)).astype(np.int64)
        missing = rng.random(num_rows) < (0.0, 0.05, 0.25)[i % 3]
        columns.append(pa.array(counts, mask=missing))
    for i in range(len(CARDINALITIES)):
        cumulative, texts = _values(i)
        index = np.searchsorted(cumulative, rng.random(num_rows))
        columns.append(texts.take(pa.array(index)))
    return pa.table(columns, names=list(COLUMNS))


@functools.cache
def _values(feature: int) -> tuple[np.ndarray, pa.Array]:
    """Cumulative probabilities and texts (8 hexadecimal digits) of a feature's values."""
    ranks = np.arange(1, CARDINALITIES[feature] + 1, dtype=np.uint64)
    weights = ranks.astype(float) ** -_EXPONENT
    # An odd multiplier permutes the 32-bit numbers: no two values of a feature are alike.
    codes = (ranks * np.uint64(2654435761) + np.uint64(feature * 40503)) % np.uint64(2**32)
    cumulative = np.cumsum(weights) / weights.sum()
    cumulative[-1] = 1.0
    return cumulative, pa.array([f"{code:08x}" for code in codes.tolist()])
