"""Preprocessing against its peers: one table of ratios, measured in one run, and a profile.

    python benchmarks/preprocess.py [--quick|--tiny] [--out preprocess.json] [--workdir DIR]

Every measurement is a process of its own. Throughput is marginal, (rows2 - rows1) / (seconds2 -
seconds1), so that start-up (importing TensorFlow) does not hide what a row costs; wall times are
printed beside it, and so is marginal throughput by CPU time, which a busy machine disturbs less.
The quick jobs take turns for some rounds; of each job's seconds at a size the median counts.
TensorFlow Transform and tfx-bsl want an environment of their own:

    python -m venv tft && tft/bin/pip install tensorflow-transform==1.21.0 tfx-bsl==1.21.0
    CLICKPARITY_TFT_PYTHON=tft/bin/python python benchmarks/preprocess.py
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE / "peers")]

from criteo_log import CARDINALITIES, write_log  # noqa: E402

from jobs.show.tables import table  # noqa: E402

TFT = os.environ.get("CLICKPARITY_TFT_PYTHON")
INSTALL = (
    "set CLICKPARITY_TFT_PYTHON to a Python that has them: "
    "python -m venv tft && tft/bin/pip install tensorflow-transform==1.21.0 tfx-bsl==1.21.0"
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Rows of the two runs whose difference is measured, by job; of a single run nothing is.

    Attributes:
        fast: of ours and of Polars.
        beam_rows, tft: of the slow peers.
        memory: of one worker whose peak is taken; None: not measured.
        layouts: of encoded rows that are written and read.
        modes: of worker processes of ours: any of "1 core", "1 worker", "2 workers".
        written: how encoded rows are written.
        read: how they are read, with the size of a batch.
    """

    fast: tuple[int, ...]
    beam_rows: tuple[int, ...]
    tft: tuple[int, ...]
    memory: tuple[int, int] | None
    layouts: int
    modes: tuple[str, ...] = ("1 core", "1 worker", "2 workers")
    written: tuple[str, ...] = ("packed", "examples", "protobuf")
    read: tuple[str, ...] = ("packed:512", "examples:512", "packed:4096", "examples:4096")


FULL = Sizes(
    (200_000, 1_000_000), (10_000, 40_000), (50_000, 200_000), (1_000_000, 4_000_000), 200_000
)
QUICK = Sizes((50_000, 200_000), (5_000, 20_000), (10_000, 30_000), (100_000, 400_000), 50_000)
TINY = Sizes((1_000,), (100,), (1_000,), None, 1_000, ("1 worker",), ("packed",), ("packed:512",))


@dataclasses.dataclass(frozen=True)
class Job:
    """A preprocessing job to measure at its sizes."""

    name: str
    script: str
    sizes: tuple[int, ...]
    options: tuple[str, ...] = ()
    python: str = sys.executable
    one_core: bool = False


class Bench:
    """Runs the measurements and keeps what they said."""

    def __init__(self, workdir: Path, sizes: Sizes, rounds: int) -> None:
        self.workdir, self.sizes, self.rounds = workdir, sizes, rounds
        self.results: dict[str, Any] = {}
        self.skipped: dict[str, str] = {}

    def run(
        self, script: str, *arguments: str, python: str = sys.executable, one_core: bool = False
    ) -> dict[str, Any]:
        """One measurement in a process: its JSON, with wall seconds and peak memory."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "POLARS_MAX_THREADS": "2",
        }
        command = [python, str(HERE / "peers" / script), *arguments]
        log = (self.workdir / "stderr.txt").open("w")
        start = time.perf_counter()
        core = {max(os.sched_getaffinity(0))}
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            preexec_fn=(lambda: os.sched_setaffinity(0, core)) if one_core else None,
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        log.close()
        if process.returncode:
            tail = (self.workdir / "stderr.txt").read_text()[-1500:]
            raise RuntimeError(f"{' '.join(command[:4])} failed ({process.returncode}):\n{tail}")
        found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return {
            **found,
            "seconds": seconds,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_mb": usage.ru_maxrss / 1024,
        }

    def job(self, script: str, rows: int, *options: str, **keywords: Any) -> dict[str, Any]:
        """A preprocessing job over the first `rows` rows; its output is removed again."""
        part = next(size for size in (50_000, 5_000, 100) if rows % size == 0)
        paths = write_log(self.workdir / "log", rows, part)
        out = self.workdir / "out"
        shutil.rmtree(out, ignore_errors=True)
        found = self.run(script, *options, str(out), *map(str, paths), **keywords)
        shutil.rmtree(out)
        if found["rows"] != rows:
            raise RuntimeError(f"{script} must process every row; got {found['rows']} of {rows}")
        return found

    def marginal(self, jobs: Sequence[Job], rounds: int) -> None:
        """Rows a second between two sizes, by job; the jobs take turns."""
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for turn in range(rounds):
            for job in jobs:
                for rows in job.sizes:
                    keywords = {"python": job.python, "one_core": job.one_core}
                    measured = self.job(job.script, rows, *job.options, **keywords)
                    found.setdefault((job.name, rows), []).append(measured)
                _say(f"round {turn + 1} of {rounds}: {job.name}")
        for job in jobs:
            self.results[job.name] = _marginal({rows: found[job.name, rows] for rows in job.sizes})
            _say(f"{job.name}: {_rate(self.results[job.name])} rows/s")

    def rate(self, name: str, key: str = "rows_per_s") -> float | None:
        """Rows a second of a measurement; None where it was skipped."""
        found = self.results.get(name)
        return found.get(key) if found else None

    # --------------------------------------------------------------- what is measured

    def preprocessing(self) -> None:
        """Both passes to shuffled packed TFRecords."""
        ours, sizes = "clickparity_job.py", self.sizes
        quick = [
            Job(
                f"clickparity, {mode}",
                ours,
                sizes.fast,
                ("--workers=2",) if mode == "2 workers" else (),
                one_core=mode == "1 core",
            )
            for mode in sizes.modes
        ]
        if importlib.util.find_spec("polars"):
            quick.append(Job("Polars script, 2 threads", "polars_job.py", sizes.fast))
        else:
            self.skipped["Polars script, 2 threads"] = "pip install polars (extra `bench`)"
        self.marginal(quick, self.rounds)
        self.marginal([Job("Beam, a row at a time", "beam_rows_job.py", sizes.beam_rows)], 1)
        if TFT:
            self.marginal([Job("TensorFlow Transform", "tft_job.py", sizes.tft, python=TFT)], 1)
        else:
            self.skipped["TensorFlow Transform"] = INSTALL

    def profile(self) -> None:
        """Where the time goes, on one core."""
        options = ("--profile",)
        found = self.job("clickparity_job.py", self.sizes.fast[-1], *options, one_core=True)
        self.results["profile"] = {k: found[k] for k in ("rows", "phases", "functions", "gone")}

    def memory(self) -> None:
        """Peak memory of one worker; the cardinality is held, the rows are not."""
        if self.sizes.memory is None:
            return
        peaks = [self.job("clickparity_job.py", rows)["peak_mb"] for rows in self.sizes.memory]
        self.results["memory"] = {"rows": list(self.sizes.memory), "peak_mb": peaks}
        _say(f"peak memory: {peaks[0]:.0f} MB and {peaks[1]:.0f} MB")

    def layouts(self) -> None:
        """Writing and reading encoded rows."""
        modes = [f"write_{how}" for how in self.sizes.written]
        modes += [f"read_{how}" for how in self.sizes.read]
        for mode in modes:
            rows = self.sizes.layouts // (20 if mode == "write_protobuf" else 1)
            arguments = (mode, str(self.workdir), str(rows))
            self.results[mode] = self.run("layouts.py", *arguments)
            _say(f"{mode}: {_rate(self.results[mode])} rows/s")
        if TFT:
            arguments = ("write_tfx_bsl", str(self.workdir), str(self.sizes.layouts))
            self.results["write_tfx_bsl"] = self.run("layouts.py", *arguments, python=TFT)
        else:
            self.skipped["write_tfx_bsl"] = INSTALL

    # --------------------------------------------------------------- what is said

    def ratios(self) -> list[dict[str, Any]]:
        """The issue's numbers: each with its target; a ratio is None where a side was skipped."""
        best = "clickparity, 2 workers"

        def ratio(name: str, over: str, under: str, target: float) -> dict[str, Any]:
            a, b = self.rate(over), self.rate(under)
            by_cpu = [self.rate(side, "rows_per_cpu_s") for side in (over, under)]
            return {
                "what": name,
                "ratio": a / b if a and b else None,
                "ratio_by_cpu": by_cpu[0] / by_cpu[1] if by_cpu[0] and by_cpu[1] else None,
                "target": target,
            }

        rows = [
            ratio("against TensorFlow Transform", best, "TensorFlow Transform", 30),
            ratio("against Beam, a row at a time", best, "Beam, a row at a time", 10),
            ratio("against a Polars script, 2 threads", best, "Polars script, 2 threads", 0.7),
            ratio("two workers against one core", best, "clickparity, 1 core", 1.6),
            ratio("two workers against one (unpinned)", best, "clickparity, 1 worker", 1.6),
            ratio("read packed: parse_example, 512", "read_packed:512", "read_examples:512", 8),
            ratio("read packed: parse_example, 4096", "read_packed:4096", "read_examples:4096", 25),
            ratio("write packed: tfx_bsl's encoder", "write_packed", "write_tfx_bsl", 20),
            ratio("write examples: tf.train.Example", "write_examples", "write_protobuf", 1),
        ]
        one_core = self.rate("clickparity, 1 core")
        rows.append({"what": "rows/s on one core", "ratio": one_core, "target": 60_000})
        if "memory" in self.results:
            small, large = self.results["memory"]["peak_mb"]
            what = "peak memory, 4 times the rows (at most)"
            rows.append({"what": what, "ratio": large / small, "target": 1.2})
        return rows

    def report(self) -> str:
        """The tables."""
        jobs = [
            [
                name,
                _rate(found),
                _rate(found, "rows_per_cpu_s"),
                *(f"{found['seconds'][end]:.1f} s" for end in (0, -1)),
                f"{found['peak_mb'][-1]:.0f} MB",
            ]
            for name, found in self.results.items()
            if "cpu_seconds" in found and "runs" in found
        ]
        parts = [
            table(
                ["job", "rows/s (marginal)", "rows/CPU s", "wall, small", "wall, large", "peak"],
                jobs,
            )
        ]
        layouts = [
            [n, _rate(r)] for n, r in self.results.items() if n.startswith(("read", "write"))
        ]
        parts.append(table(["encoded rows", "rows/s"], layouts))
        ratios = [
            [
                r["what"],
                _figure(r["ratio"]),
                _figure(r.get("ratio_by_cpu"), "-"),
                _figure(r["target"]),
            ]
            for r in self.ratios()
        ]
        parts.append(table(["ratio", "measured", "by CPU time", "target"], ratios))
        profile = self.results["profile"]
        total = sum(profile["phases"].values())
        lines = [[f"phase: {n}", s, f"{s / total:.1%}"] for n, s in profile["phases"].items()]
        lines += [[n, s, f"{s / total:.1%}"] for n, s in profile["functions"].items()]
        title = f"where the time goes: {profile['rows']:,} rows on one core"
        parts.append(
            table(["function (nested ones count twice)", "seconds", "share"], lines, title)
        )
        if profile["gone"]:
            parts.append("not found by the profile: " + ", ".join(profile["gone"]))
        parts += [f"{name}: skipped; {how}" for name, how in self.skipped.items()]
        return "\n".join(parts)


def _marginal(runs: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """What a further row costs, from the medians of some runs at two sizes, by rows."""

    def medians(key: str) -> list[float]:
        return [statistics.median(run[key] for run in some) for some in runs.values()]

    sizes, seconds, cpu_seconds = list(runs), medians("seconds"), medians("cpu_seconds")
    rows, spent, worked = (x[-1] - x[0] for x in (sizes, seconds, cpu_seconds))
    return {
        "rows": sizes,
        "rows_per_s": rows / spent if spent > 0 else None,
        "rows_per_cpu_s": rows / worked if worked > 0 else None,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": medians("peak_mb"),
        "runs": list(runs.values()),
    }


def _rate(found: dict[str, Any], key: str = "rows_per_s") -> str:
    rate = found[key]
    return "-" if rate is None else f"{rate:,.0f}"


def _figure(value: float | None, none: str = "skipped") -> str:
    return none if value is None else f"{value:,.0f}" if value > 100 else f"{value:.2f}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: a smoke test, not numbers"
    )
    parser.add_argument("--tiny", action="store_true", help="hundreds of rows: does it run?")
    parser.add_argument("--out", default="preprocess.json", help="where the results go")
    parser.add_argument("--workdir", help="parent of the temporary directory for logs and outputs")
    parser.add_argument(
        "--rounds", type=int, default=3, help="turns of the quick jobs; the median counts"
    )
    parser.add_argument(
        "--only", nargs="+", choices=("preprocessing", "memory", "layouts"), help="default: all"
    )
    arguments = parser.parse_args(argv)
    chosen = arguments.only or ["preprocessing", "memory", "layouts"]
    with tempfile.TemporaryDirectory(dir=arguments.workdir) as workdir:
        sizes = TINY if arguments.tiny else QUICK if arguments.quick else FULL
        bench = Bench(Path(workdir), sizes, arguments.rounds if sizes is FULL else 1)
        for part in [*chosen, "profile"]:
            getattr(bench, part)()
            result = {
                "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
                "load_average": os.getloadavg(),
                "cardinalities": CARDINALITIES,
                "quick": sizes is not FULL,
                "results": bench.results,
                "ratios": bench.ratios(),
                "skipped": bench.skipped,
            }
            # After every part: what was measured is not lost with a later failure.
            Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
        print(bench.report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
