"""A click log with known truth: every row carries the probability its click was drawn from.

The log is the demo's and the tests' data set, because with it AUC and calibration can be told as
distance to the best possible. Its truth (`synthetic_world`) is the same for every seed, so logs of
two seeds are two samples of one world; the seed draws the rows. Rows are drawn in fixed blocks,
each from its own generator: the same rows whatever the chunk size, in memory that does not
grow with the log.

A log with further columns is a subclass that takes the same blocks and adds its columns and their
effect: `synthetic_sequences.SequenceLog` does so with the ads around the target ad.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from scipy.special import expit

from pipeline.errors import ConfigError
from pipeline.machine_faults import MachineError, machine_error
from pipeline.paths import local_path
from pipeline.synthetic.world import BLOCK_ROWS, Block, Ids, draw_block, world

__all__ = ["SyntheticLog", "join_texts", "write_log"]

CALIBRATION_BLOCKS = 64  # about 1 M rows: the mean probability is then known to about 0.2 %


def join_texts(offsets: Ids, ids: Ids, values: pa.Array) -> pa.Array:
    """The texts `values[ids]` of each row in one, as "tag1|tag9"; "" for a row without any.

    Args:
        offsets: [rows + 1], where each row's ids begin.
        ids: [offsets[-1]].
        values: the text of each id.
    """
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(pa.array(ids)))
    return pc.binary_join(lists, "|")


@dataclasses.dataclass(frozen=True)
class SyntheticLog:
    """A click log of `num_rows` rows; the same arguments give the same rows.

    Columns: click (0/1), time (epoch seconds, rising), n1 .. n6 (null is missing), c1 .. c12 (text,
    null is missing), tags ("tag1|tag9", "" for none), true_probability (float64, never a feature).

    Args:
        num_rows: rows in the log.
        ctr: mean of the true probabilities over the log (days of drift included).
        num_days: days the rows spread over, from 2024-01-01 UTC.
        seed: draws the rows. The truth behind them is the same for every seed.
        drift: scale of the day-to-day change of the base rate; at 1 the days' logits deviate by
            about 0.2, at 0 every day is alike.

    Raises:
        ConfigError: an argument is out of its range.
    """

    num_rows: int
    ctr: float = 0.02
    num_days: int = 7
    seed: int = 0
    drift: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("num_rows", 1), ("num_days", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name} must be an integer of at least {least}",
                    getattr(self, name),
                    f"Give {name} {least} or more.",
                )
        if not 0.0 < self.ctr < 1.0:
            raise ConfigError(
                "ctr must lie strictly between 0 and 1", self.ctr, "Give 0.02 for 2 percent."
            )
        if not (math.isfinite(self.drift) and self.drift >= 0.0):
            raise ConfigError(
                "drift must be finite and not negative", self.drift, "Give 0 for no drift."
            )

    @functools.cached_property
    def intercept(self) -> float:
        """The logit's constant that makes the mean true probability equal `ctr`.

        Found by bisection on this log's own rows: all of them up to about a million, beyond that on
        blocks spread evenly over it.
        """
        num_blocks = -(-self.num_rows // BLOCK_ROWS)
        indices = list(range(num_blocks))
        if num_blocks > CALIBRATION_BLOCKS:
            spread = np.linspace(0, num_blocks - 1, CALIBRATION_BLOCKS)
            indices = [int(i) for i in spread.round()]
        logits = np.concatenate(
            [self._block(i).logits[: self.num_rows - i * BLOCK_ROWS] for i in indices]
        )
        low, high = -50.0, 50.0
        while high - low > 1e-9:
            middle = (low + high) / 2
            low, high = (
                (middle, high) if expit(logits + middle).mean() < self.ctr else (low, middle)
            )
        return (low + high) / 2

    def _block(self, index: int) -> Block:
        return draw_block(self.num_rows, self.num_days, self.seed, self.drift, index)

    def _columns(self, block: Block) -> dict[str, pa.Array]:
        values = world().values
        probability = expit(block.logits + self.intercept)
        return {
            "click": pa.array((block.uniform < probability).astype(np.int8)),
            "time": pa.array(block.time_s),
            **{n: pa.array(v, from_pandas=True) for n, v in block.numeric.items()},
            **{n: values[n].take(pa.array(v)) for n, v in block.ids.items()},
            "tags": join_texts(block.tag_offsets, block.tag_ids, values["tags"]),
            "true_probability": pa.array(probability),
        }

    def batches(self, chunk_rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The log in order, `chunk_rows` rows at a time (the last batch may be shorter).

        Raises:
            ConfigError: chunk_rows is not positive.
        """
        _check_chunk_rows(chunk_rows)
        return self._range(0, self.num_rows, chunk_rows)

    def _range(self, start: int, stop: int, chunk_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows [start, stop) in batches of `chunk_rows`."""
        pending: list[pa.RecordBatch] = []
        held = 0
        for index in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
            first = index * BLOCK_ROWS
            batch = pa.RecordBatch.from_pydict(self._columns(self._block(index)))
            batch = batch.slice(0, stop - first).slice(max(0, start - first))
            pending.append(batch)
            held += batch.num_rows
            if held < chunk_rows:
                continue
            whole = pa.concat_batches(pending)
            full = held - held % chunk_rows
            for offset in range(0, full, chunk_rows):
                yield whole.slice(offset, chunk_rows)
            pending, held = [whole.slice(full)], held - full
        if held:
            yield pa.concat_batches(pending)


def _check_chunk_rows(chunk_rows: int) -> None:
    if chunk_rows < 1:
        raise ConfigError("chunk_rows must be positive", chunk_rows, "Try 65536.")


def write_log(
    log: SyntheticLog,
    out_dir: str | os.PathLike[str],
    num_files: int = 1,
    on_progress: Callable[[int], None] | None = None,
    chunk_rows: int = 65_536,
) -> list[Path]:
    """Writes the log as part-00000.csv .. in order; comma, a header each, empty is missing.

    Floats are written so that they read back as the same float64. All parts are written beside
    their goal under a hidden name and renamed at the end.

    Args:
        log: what to write.
        out_dir: a local folder, made when it does not exist.
        num_files: parts of nearly equal size.
        on_progress: called with the number of rows written so far.
        chunk_rows: rows held in memory at a time.

    Returns:
        The files, in the order of their rows.

    Raises:
        ConfigError: num_files or chunk_rows is out of range, or the folder cannot be used or
            holds parts of another log.
    """
    if not 1 <= num_files <= log.num_rows:
        raise ConfigError(
            "num_files must lie between 1 and the number of rows", num_files, "Try 1."
        )
    _check_chunk_rows(chunk_rows)
    folder = local_path(out_dir, "out")
    targets = [folder / f"part-{i:05d}.csv" for i in range(num_files)]
    hidden = [target.with_name(f".{target.name}.{os.getpid()}.partial") for target in targets]
    bounds = [log.num_rows * i // num_files for i in range(num_files + 1)]
    written = 0
    with _folder_problems(folder):
        _prepare_folder(folder, targets)
        try:
            for path, start, stop in zip(hidden, bounds[:-1], bounds[1:], strict=True):
                for rows in _write_part(path, log._range(start, stop, chunk_rows)):
                    written += rows
                    if on_progress is not None:
                        on_progress(written)
            for path, target in zip(hidden, targets, strict=True):
                path.replace(target)
        finally:
            for path in hidden:
                path.unlink(missing_ok=True)
    return targets


@contextlib.contextmanager
def _folder_problems(folder: Path) -> Iterator[None]:
    """What the system denies, as an error of the argument."""
    try:
        yield
    except OSError as error:
        if isinstance(fault := machine_error(error, folder), MachineError):
            raise fault from error
        raise ConfigError(
            "the output must be a folder that can be written",
            f"{folder} ({error.strerror})",
            "Name another folder.",
        ) from error


def _prepare_folder(folder: Path, targets: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted(set(folder.glob("part-*.csv")) - set(targets))
    if foreign:
        raise ConfigError(
            "the output folder must not hold parts of another log",
            foreign[0],
            "Name another folder, or remove them.",
        )


def _write_part(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[int]:
    """Writes a file; yields the rows of each batch when they are written."""
    # "none" raises on a value that would need quotes; "needed" would quote every string.
    options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    with path.open("wb") as sink:
        for number, batch in enumerate(batches):
            if number == 0:
                sink.write((",".join(batch.schema.names) + "\n").encode())
            pa.csv.write_csv(batch, sink, options)
            yield batch.num_rows
