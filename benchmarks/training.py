"""Training steps against peers, vocabulary, floor and reader: ratios, paired, measured in one run.

    python benchmarks/training.py [--quick|--tiny] [--out training.json]
    python benchmarks/training.py --only quality --quality DATA_DIR [--work DIR] [--seeds 3]

Every engine is a process of its own on two threads. Two that are compared take turns, some steps
each, and the ratio of each turn gives one sample: what else the machine does hits both. Printed are
the geometric mean and its 95 % interval. Peers want environments of their own:

    python -m venv deepctr && deepctr/bin/pip install tensorflow==2.21.0 tf-keras==2.21.0 pandas
    deepctr/bin/pip install --no-deps deepctr==0.9.4
    python -m venv torch && torch/bin/pip install torch==2.13.0 numpy \
        --index-url https://download.pytorch.org/whl/cpu
    CLICKPARITY_DEEPCTR_PYTHON=deepctr/bin/python CLICKPARITY_TORCH_PYTHON=torch/bin/python \
        python benchmarks/training.py

Where a ratio is missed, the operations that our step's time went to follow the table.

--quality trains the row-sparse optimizers and dense Adam on a preprocessed synthetic log with paired
seeds and compares their test AUC (peers/training_quality.py); it takes long. With --work what was
trained is kept, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE / "peers")]

from train_steps import DIM, FIELDS, NUMERICS, make_rows  # noqa: E402
from training_quality import compare_quality, quality_table  # noqa: E402

from jobs.show.tables import table  # noqa: E402

BATCH_SIZE, THREADS = 512, 2
DEEPCTR, TORCH = "CLICKPARITY_DEEPCTR_PYTHON", "CLICKPARITY_TORCH_PYTHON"
INSTALL = {
    DEEPCTR: f"set {DEEPCTR} to a Python with tensorflow==2.21.0, tf-keras==2.21.0, pandas and "
    "(pip install --no-deps) deepctr==0.9.4",
    TORCH: f"set {TORCH} to a Python with torch==2.13.0 from https://download.pytorch.org/whl/cpu",
}
# (name, engine, peer's Python, vocabularies, at least this many times as fast)
PEERS = (
    ("DeepCTR DCN", "deepctr", DEEPCTR, {1_000_000: 4.0, 10_000_000: 18.0}),
    ("PyTorch, Adam", "torch-adam", TORCH, {1_000_000: 4.0, 10_000_000: 18.0}),
    ("PyTorch, SparseAdam", "torch-sparse-adam", TORCH, {1_000_000: 0.95}),
    ("PyTorch, sparse Adagrad", "torch-sparse-adagrad", TORCH, {1_000_000: 0.95}),
)


class Engine:
    """A process that trains a few steps when told to."""

    def __init__(
        self,
        engine: str,
        vocab: int,
        *,
        python: str = sys.executable,
        records: str | None = None,
    ) -> None:
        options = ["--vocab", str(vocab), "--batch-size", str(BATCH_SIZE)]
        options += ["--threads", str(THREADS), *(["--records", records] if records else [])]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "OMP_NUM_THREADS": str(THREADS),
        }
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read when the engine fails
        self._process = subprocess.Popen(
            [python, str(HERE / "peers" / "train_steps.py"), engine, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self._name = engine
        self._answer()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()

    def steps(self, count: int) -> dict[str, float]:
        """Milliseconds a step over `count` steps, and peak memory so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"go {count}\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._answer())
        return answer

    def profile(self, count: int) -> list[dict[str, float | str]]:
        """Milliseconds a step by kind of operation, the longest first."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"profile {count}\n")
        self._process.stdin.flush()
        answer: list[dict[str, float | str]] = json.loads(self._answer())
        return answer

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"{self._name} failed:\n{self._log.read()[-2000:]}")
        return line


def compare(one: Engine, other: Engine, rounds: int, steps: int) -> dict[str, Any]:
    """How many times as long the other's step takes, paired by turn, with its 95 % interval."""
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(one.steps(steps))
        theirs.append(other.steps(steps))
    result: dict[str, Any] = {
        "ours_peak_mb": ours[-1]["peak_mb"],
        "other_peak_mb": theirs[-1]["peak_mb"],
    }
    for clock in ("wall_ms", "cpu_ms"):
        a, b = (np.array([turn[clock] for turn in turns]) for turns in (ours, theirs))
        logs = np.log(b / a)
        half = 1.96 * logs.std(ddof=1) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
        low, middle, high = (float(x) for x in np.exp(logs.mean() + half * np.array([-1, 0, 1])))
        result[clock] = {
            "ours": float(np.median(a)),
            "other": float(np.median(b)),
            "ratio": middle,
            "interval": [low, high],
        }
    return result


def write_records(path: Path, vocab: int) -> str:
    """A data directory of packed shards with the rows of the in-memory engine."""
    from pipeline.records.data_directory import shard_name
    from pipeline.records.encoded import EncodedSpec, IdFeature
    from pipeline.records.packed import RowLayout, write_packed

    fields = tuple(IdFeature(f"c{i}", vocab // FIELDS) for i in range(FIELDS))
    spec = EncodedSpec(tuple(f"i{i}" for i in range(NUMERICS)), fields)
    rows = make_rows(vocab, BATCH_SIZE)
    count = len(rows["label"])
    rows |= {"weight": np.ones(count, np.float32), "carry": np.zeros((count, 0), np.float32)}
    packed = np.tile(RowLayout.of(spec).pack(rows), (16, 1))
    (path / "train").mkdir(parents=True)
    shards = np.array_split(packed, 4)
    for index, shard in enumerate(shards):
        file = path / "train" / shard_name(index, len(shards))
        write_packed(str(file), RowLayout.of(spec), shard)
    (path / "spec.json").write_text(spec.to_json())
    train = {"rows": len(packed), "shards": len(shards), "weight": float(len(packed))}
    splits = {"train": {**train, "label_rate": float(rows["label"].mean())}}
    summary = {"splits": splits, "negative_keep_rate": 1.0}
    (path / "summary.json").write_text(json.dumps(summary))
    (path / "_SUCCESS").write_text("benchmark\n")
    return str(path)


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        rounds: turns of two engines.
        steps: of a turn.
        vocabularies: rows of all tables together; each is measured against the first.
        middle: at which floor, reader and profile are.
    """

    rounds: int = 12
    steps: int = 16
    vocabularies: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    middle: int = 1_000_000


QUICK = Extent(4, 8, (100_000, 1_000_000))
TINY = Extent(2, 2, (26_000,), 26_000)


def speed(extent: Extent) -> dict[str, Any]:
    """Every ratio of speed, and memory; prints tables as it goes."""
    rounds, steps = extent.rounds, extent.steps
    vocabularies, middle = extent.vocabularies, extent.middle
    rows: list[list[Any]] = []
    results: dict[str, Any] = {}
    skipped: list[str] = []
    missed: list[str] = []

    def record(
        name: str, vocab: int, found: dict[str, Any], *, at_least: float = 0, at_most: float = 0
    ) -> None:
        wall, cpu = found["wall_ms"], found["cpu_ms"]
        low, high = wall["interval"]
        met = wall["ratio"] >= at_least if at_least else wall["ratio"] <= at_most
        if not met:
            missed.append(f"{name} at {vocab:,} rows")
        results[f"{name} at {vocab}"] = {**found, "met": met}
        rows.append(
            [
                f"{name}, {vocab:,} rows",
                f"{wall['ours']:.1f}",
                f"{wall['other']:.1f}",
                f"{wall['ratio']:.2f} [{low:.2f}, {high:.2f}]",
                f"{cpu['ratio']:.2f}",
                (f">= {at_least:g}" if at_least else f"<= {at_most:g}")
                + ("" if met else " MISSED"),
            ]
        )
        print(f"{name} at {vocab:,}: {wall['ratio']:.2f}", file=sys.stderr, flush=True)

    peaks: dict[int, float] = {}
    for vocab in vocabularies[1:]:
        with Engine("clickparity", vocabularies[0]) as small, Engine("clickparity", vocab) as large:
            found = compare(small, large, rounds, steps)
            peaks[vocab] = found["other_peak_mb"]
            record("larger vocabulary / 0.1 M", vocab, found, at_most=1.25)
    with Engine("clickparity", middle) as ours:
        with Engine("floor", middle) as floor:
            found = compare(ours, floor, rounds, steps)
            record("matrix products / step", middle, found, at_least=round(1 / 1.3, 2))
        with tempfile.TemporaryDirectory() as directory:
            path = write_records(Path(directory) / "data", middle)
            with Engine("clickparity-records", middle, records=path) as reading:
                found = compare(reading, ours, rounds, steps)
                record("in memory / from shards", middle, found, at_least=0.95)
    for name, engine, variable, bars in PEERS:
        python = os.environ.get(variable)
        if python is None:
            skipped.append(f"{name}: skipped; {INSTALL[variable]}")
            continue
        for vocab, bar in bars.items():
            if vocab in vocabularies:
                with (
                    Engine("clickparity", vocab) as ours,
                    Engine(engine, vocab, python=python) as peer,
                ):
                    record(name, vocab, compare(ours, peer, rounds, steps), at_least=bar)
    header = ["other / ours", "ours ms", "other ms", "ratio [95 %]", "ratio, processor", "wanted"]
    print(table(header, rows, f"Training steps, batch {BATCH_SIZE}, {THREADS} threads"))
    results["peak memory"] = [memory_row(vocab, peak) for vocab, peak in peaks.items()]
    print(
        table(
            ["peak memory", "MB", "wanted MB, table + Adagrad's state + 1,024"],
            [
                [f"{r['rows']:,} rows", f"{r['peak_mb']:,.0f}", f"<= {r['bar_mb']:,.0f}"]
                for r in results["peak memory"]
            ],
        )
    )
    missed += [f"peak memory at {r['rows']:,}" for r in results["peak memory"] if not r["met"]]
    for line in skipped:
        print(line)
    if missed and extent is not TINY:
        results["profile"] = explain(missed, middle)
    return results


def memory_row(vocab: int, peak_mb: float) -> dict[str, Any]:
    """The highest resident size of our engine against table, optimizer state and 1 GB."""
    bar_mb = 2 * vocab * DIM * 4 / 2**20 + 1024
    return {"rows": vocab, "peak_mb": peak_mb, "bar_mb": bar_mb, "met": peak_mb <= bar_mb}


def explain(missed: list[str], vocab: int) -> list[dict[str, float | str]]:
    """Prints where our step's time goes, for the ratios that were missed."""
    with Engine("clickparity", vocab) as ours:
        operations = ours.profile(16)
    print(f"missed: {'; '.join(missed)}. Our step at {vocab:,} rows, by operation:")
    cells = [[o["operation"], f"{o['ms']:.2f}", f"{o['calls']:.0f}"] for o in operations]
    print(table(["operation", "ms a step, over all threads", "calls a step"], cells))
    return operations


def main(argv: list[str] | None = None) -> int:
    """Prints the tables; 0 whether or not the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns, at most 1 M rows")
    parser.add_argument("--tiny", action="store_true", help="a few steps: does it run?")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--only", choices=("speed", "quality"), help="one part instead of both")
    parser.add_argument("--quality", metavar="DATA_DIR", help="compare AUC on this data set, too")
    parser.add_argument("--work", type=Path, help="keep what --quality trained, to go on from it")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args(argv)
    if args.only == "quality" and not args.quality:
        parser.error(
            "--only quality needs --quality DATA_DIR: a preprocessed log, see clickparity synth"
        )
    results: dict[str, Any] = {}
    if args.only != "quality":
        results = speed(TINY if args.tiny else QUICK if args.quick else Extent())
    if args.quality and args.only != "speed":
        with tempfile.TemporaryDirectory() as directory:
            results["quality"] = compare_quality(
                args.quality, args.work or Path(directory), args.seeds
            )
        print(quality_table(results["quality"]))
    if args.out:
        machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
        args.out.write_text(json.dumps({"machine": machine, "results": results}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
