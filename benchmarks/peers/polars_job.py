"""The same preprocessing as one hand-written Polars script: what a good engineer writes in a day.

Reads the log, splits it by a hash of the row, computes vocabularies (minimum count 2) and moments of
log1p over the training rows, encodes, shuffles with a seed and writes packed TFRecords. It holds the
whole log in memory, knows one layout, and stops at the first malformed row.

    POLARS_MAX_THREADS=2 python polars_job.py OUT FILE...
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.records.encoded import EncodedSpec, IdFeature
from pipeline.records.packed import RowLayout, write_packed

NUMERIC = [f"I{i + 1}" for i in range(13)]
TEXT = [f"C{i + 1}" for i in range(26)]
SHARDS = 4


def main(out: Path, files: list[str]) -> dict[str, object]:
    phases, start = {}, time.perf_counter()

    def done(phase: str) -> None:
        nonlocal start
        phases[phase] = time.perf_counter() - start
        start = time.perf_counter()

    types = {
        "label": pl.Int8,
        **dict.fromkeys(NUMERIC, pl.Float64),
        **dict.fromkeys(TEXT, pl.String),
    }
    scan = pl.scan_csv(files, separator="\t", has_header=False, schema=types, quote_char=None)
    log = scan.collect().with_row_index("row")
    done("read")
    u = pl.col("row").hash(seed=0) % 10
    log = log.with_columns(split=pl.when(u == 0).then(2).when(u == 1).then(1).otherwise(0))
    train = log.filter(pl.col("split") == 0)
    signed = {
        c: pl.col(c).fill_null(0).sign() * pl.col(c).fill_null(0).abs().log1p() for c in NUMERIC
    }
    moments = train.select(
        *(signed[c].mean().alias(f"{c}_mean") for c in NUMERIC),
        *(signed[c].std(ddof=0).alias(f"{c}_std") for c in NUMERIC),
    ).row(0, named=True)
    vocabularies = {}
    for c in TEXT:
        counted = train.select(pl.col(c).drop_nulls().value_counts()).unnest(c)
        kept = counted.filter(pl.col("count") >= 2).sort(["count", c], descending=[True, False])
        vocabularies[c] = kept
    statistics = out / "statistics"
    statistics.mkdir(parents=True)
    (statistics / "statistics.json").write_text(json.dumps(moments))
    for c, vocabulary in vocabularies.items():
        vocabulary.write_csv(statistics / f"{c}.csv")
    done("statistics")
    log = log.sample(fraction=1.0, shuffle=True, seed=0)
    done("shuffle")
    for c in TEXT:
        ids = vocabularies[c].select(c, pl.int_range(2, 2 + pl.len(), dtype=pl.Int32).alias("id"))
        log = log.with_columns(
            log.select(c)
            .join(ids, on=c, how="left", maintain_order="left")
            .select(
                pl.when(pl.col(c).is_null()).then(0).otherwise(pl.col("id").fill_null(1)).alias(c)
            )
            .to_series()
            .cast(pl.Int32)
        )
    log = log.with_columns(
        ((signed[c] - moments[f"{c}_mean"]) / moments[f"{c}_std"]).cast(pl.Float32).alias(c)
        for c in NUMERIC
    )
    done("encode")
    spec = EncodedSpec(
        numeric=tuple(NUMERIC),
        categorical=tuple(IdFeature(c, 2 + len(vocabularies[c])) for c in TEXT),
    )
    layout = RowLayout.of(spec)
    written = 0
    for number, name in enumerate(("train", "validation", "test")):
        part = log.filter(pl.col("split") == number)
        rows = layout.pack(
            {
                "numeric": part.select(NUMERIC).to_numpy(),
                "ids": part.select(TEXT).to_numpy(),
                "label": part["label"].to_numpy(),
                "weight": np.ones(len(part), np.float32),
                "carry": np.zeros((len(part), 0), np.float32),
            }
        )
        (out / name).mkdir()
        for shard, piece in enumerate(np.array_split(rows, SHARDS)):
            path = out / name / f"part-{shard:05d}-of-{SHARDS:05d}.tfrecord"
            write_packed(str(path), layout, piece)
        written += len(rows)
    done("write")
    return {"rows": written, "phases": phases}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))
