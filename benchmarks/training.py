"""Training steps against peers, vocabulary, floor and reader: ratios, paired, measured in one run.

    python benchmarks/training.py [--quick] [--out training.json] [--quality DATA_DIR]

Every engine is a process of its own on two threads. Two that are compared take turns, some steps
each, and the ratio of each turn gives one sample: what else the machine does hits both. Printed are
the geometric mean and its 95 % interval. Peers want environments of their own:

    python -m venv deepctr && deepctr/bin/pip install tensorflow==2.21.0 tf-keras==2.21.0 pandas
    deepctr/bin/pip install --no-deps deepctr==0.9.4
    python -m venv torch && torch/bin/pip install torch==2.13.0 numpy \
        --index-url https://download.pytorch.org/whl/cpu
    CLICKPARITY_DEEPCTR_PYTHON=deepctr/bin/python CLICKPARITY_TORCH_PYTHON=torch/bin/python \
        python benchmarks/training.py

--quality trains the row-sparse optimizers and dense Adam on a preprocessed synthetic log with paired
seeds and compares their test AUC; it takes long.
"""

from __future__ import annotations

import argparse
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

from jobs.tables import table  # noqa: E402

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
    from pipeline.encoded import EncodedSpec, IdFeature
    from pipeline.records import RowLayout, write_packed

    fields = tuple(IdFeature(f"c{i}", vocab // FIELDS) for i in range(FIELDS))
    spec = EncodedSpec(tuple(f"i{i}" for i in range(NUMERICS)), fields)
    rows = make_rows(vocab, BATCH_SIZE)
    count = len(rows["label"])
    rows |= {"weight": np.ones(count, np.float32), "carry": np.zeros((count, 0), np.float32)}
    packed = np.tile(RowLayout.of(spec).pack(rows), (16, 1))
    (path / "train").mkdir(parents=True)
    shards = np.array_split(packed, 4)
    for index, shard in enumerate(shards):
        file = path / "train" / f"part-{index:05d}-of-{len(shards):05d}.tfrecord"
        write_packed(str(file), RowLayout.of(spec), shard)
    (path / "spec.json").write_text(spec.to_json())
    splits = {"train": {"rows": len(packed), "label_rate": float(rows["label"].mean())}}
    summary = {"splits": splits, "negative_keep_rate": 1.0}
    (path / "summary.json").write_text(json.dumps(summary))
    (path / "_SUCCESS").write_text("benchmark\n")
    return str(path)


def quality(data_path: str, workdir: Path, seeds: int, epochs: int) -> list[dict[str, Any]]:
    """Test AUC of row-sparse Adagrad and lazy Adam minus dense Adam's, by batch size."""
    from models.config import parse_model_config
    from models.evaluation import evaluate_run
    from models.metrics import auc
    from models.run_directory import RunDirectory
    from models.train_config import parse_train_config
    from models.trainer import train
    from pipeline.data_directory import DataDirectory

    data = DataDirectory.open(data_path)
    model = {"name": "dcn_v2", "norm": "layer", "embedding_dim": DIM}
    rates = {"adagrad": 0.02, "lazy_adam": 1e-3, "adam": 1e-3}
    found: dict[tuple[int, str], list[float]] = {}
    for batch_size in (256, 512, 4096, 65536):
        for seed in range(seeds):
            for optimizer, rate in rates.items():
                config = {
                    "global_batch_size": batch_size,
                    "epochs": epochs,
                    "seed": seed,
                    "embedding_optimizer": optimizer,
                    "embedding_learning_rate": rate,
                    "scaling": {"rule": "sqrt" if batch_size > 512 else "none"},
                }
                path = workdir / f"{optimizer}-{batch_size}-{seed}"
                run = RunDirectory.create(
                    path, {"model": model, "train": config}, data.fingerprint, data.path
                )
                train(data, parse_model_config(model), parse_train_config(config), run)
                scored = evaluate_run(run.load_model(), data, "test")
                area = auc(scored.label, scored.logit, scored.weight)
                found.setdefault((batch_size, optimizer), []).append(area)
    results = []
    for (batch_size, optimizer), areas in found.items():
        if optimizer == "adam":
            continue
        gains = np.array(areas) - np.array(found[batch_size, "adam"])
        half = 1.96 * gains.std(ddof=1) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        results.append(
            {
                "batch_size": batch_size,
                "optimizer": optimizer,
                "auc": float(np.mean(areas)),
                "gain": float(gains.mean()),
                "interval": [float(gains.mean() - half), float(gains.mean() + half)],
            }
        )
    return results


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns, at most 1 M rows")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--quality", metavar="DATA_DIR", help="compare AUC on this data set, too")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args(argv)
    rounds, steps = (4, 8) if args.quick else (12, 16)
    vocabularies = (100_000, 1_000_000) if args.quick else (100_000, 1_000_000, 10_000_000)
    rows: list[list[Any]] = []
    results: dict[str, Any] = {}
    skipped: list[str] = []

    def record(name: str, vocab: int, found: dict[str, Any], bar: str) -> None:
        results[f"{name} at {vocab}"] = found
        wall, cpu = found["wall_ms"], found["cpu_ms"]
        low, high = wall["interval"]
        rows.append(
            [
                f"{name}, {vocab:,} rows",
                f"{wall['ours']:.1f}",
                f"{wall['other']:.1f}",
                f"{wall['ratio']:.2f} [{low:.2f}, {high:.2f}]",
                f"{cpu['ratio']:.2f}",
                bar,
            ]
        )
        print(f"{name} at {vocab:,}: {wall['ratio']:.2f}", file=sys.stderr, flush=True)

    with Engine("clickparity", vocabularies[0]) as small:
        for vocab in vocabularies[1:]:
            with Engine("clickparity", vocab) as large:
                record(
                    "larger vocabulary / 0.1 M",
                    vocab,
                    compare(small, large, rounds, steps),
                    "<= 1.25",
                )
    with Engine("clickparity", 1_000_000) as ours:
        with Engine("floor", 1_000_000) as floor:
            record(
                "matrix products / step", 1_000_000, compare(ours, floor, rounds, steps), ">= 0.77"
            )
        with tempfile.TemporaryDirectory() as directory:
            path = write_records(Path(directory) / "data", 1_000_000)
            with Engine("clickparity-records", 1_000_000, records=path) as reading:
                record(
                    "in memory / from shards",
                    1_000_000,
                    compare(reading, ours, rounds, steps),
                    ">= 0.95",
                )
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
                    record(name, vocab, compare(ours, peer, rounds, steps), f">= {bar}")
    header = ["other / ours", "ours ms", "other ms", "ratio [95 %]", "ratio, processor", "wanted"]
    print(table(header, rows, f"Training steps, batch {BATCH_SIZE}, {THREADS} threads"))
    for line in skipped:
        print(line)
    if args.quality:
        with tempfile.TemporaryDirectory() as directory:
            results["quality"] = quality(args.quality, Path(directory), args.seeds, args.epochs)
        cells = [
            [
                f"{r['optimizer']}, batch {r['batch_size']:,}",
                f"{r['auc']:.4f}",
                f"{r['gain']:+.4f} [{r['interval'][0]:+.4f}, {r['interval'][1]:+.4f}]",
            ]
            for r in results["quality"]
        ]
        print(table(["optimizer", "test AUC", "against dense Adam [95 %]"], cells, "Quality"))
    if args.out:
        machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
        args.out.write_text(json.dumps({"machine": machine, "results": results}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
