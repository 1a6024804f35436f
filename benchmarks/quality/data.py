"""The logs of the benchmark, written and preprocessed once and shared by all cells."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.quality.plan import CTR, Log
from pipeline.records.data_directory import DataDirectory

__all__ = ["EncodedRows", "data_directory", "encoded_rows", "opened", "prepare"]

BATCH_ROWS = 32_768


def data_directory(workdir: Path, log: Log) -> Path:
    """Where `prepare` puts the encoded rows of a log."""
    return workdir / "data" / log.name


def opened(workdir: Path, log: Log) -> DataDirectory | None:
    """The encoded rows of a log; None before `prepare` has made them."""
    path = data_directory(workdir, log)
    return DataDirectory.open(path) if (path / "_SUCCESS").exists() else None


def prepare(workdir: Path, log: Log) -> DataDirectory:
    """Writes the log and preprocesses it with the schema `synthetic`, unless that is done.

    Only the split is the benchmark's own: its shares are those of `log`.
    """
    from pipeline.preprocessing.config import PreprocessConfig
    from pipeline.preprocessing.job import preprocess
    from pipeline.schema import FeatureSchema
    from pipeline.synthetic.log import SyntheticLog, write_log

    goal = data_directory(workdir, log)
    raw = workdir / "logs" / dataclasses.replace(log, negative_keep_rate=1.0).name
    if not (goal / "_SUCCESS").exists() and not (raw / "part-00003.csv").exists():
        whole = SyntheticLog(log.num_rows, ctr=CTR, seed=log.seed, drift=log.drift)
        write_log(whole, raw, num_files=4)
    if (data := opened(workdir, log)) is not None:
        return data
    schema = yaml.safe_load(FeatureSchema.load("synthetic").to_yaml())
    schema["split"] = {
        "by": "row",
        "validation": log.validation / log.num_rows,
        "test": log.test / log.num_rows,
    }
    path = workdir / f"{log.name}.yaml"
    path.write_text(yaml.safe_dump(schema, sort_keys=False))
    config = PreprocessConfig(negative_keep_rate=log.negative_keep_rate)
    return preprocess(FeatureSchema.load(str(path)), [str(raw / "*.csv")], goal, config)


@dataclasses.dataclass(frozen=True)
class EncodedRows:
    """A split as the networks see it, in file order.

    Attributes:
        ids: int32 [rows, F].
        numeric: float32 [rows, D].
        sequences: by name, int32 [rows, L], 0 is padding.
        label: float32 [rows].
        weight: float32 [rows].
        truth: float64 [rows], the true click probability; NaN where the log does not carry it.
    """

    ids: NDArray[np.int32]
    numeric: NDArray[np.float32]
    sequences: dict[str, NDArray[np.int32]]
    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    truth: NDArray[np.float64]


def encoded_rows(data: DataDirectory, split: str) -> EncodedRows:
    """All rows of a split in memory."""
    from pipeline.records.dataset import evaluation_batches

    sequences = [f"sequence/{sequence.name}" for sequence in data.spec.sequences]
    names = ["ids", "numeric", "label", "weight", *sequences]
    names += ["carry"] if data.spec.carry else []
    parts: dict[str, list[NDArray]] = {name: [] for name in names}
    for batch in evaluation_batches(data, split, BATCH_ROWS):
        for name in names:
            parts[name].append(batch[name].numpy())
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    truth = np.full(len(whole["label"]), np.nan)
    if "true_probability" in data.spec.carry:
        truth = whole["carry"][:, data.spec.carry.index("true_probability")]
    return EncodedRows(
        whole["ids"],
        whole["numeric"],
        {name.removeprefix("sequence/"): whole[name] for name in sequences},
        whole["label"],
        whole["weight"],
        truth.astype(np.float64),
    )
