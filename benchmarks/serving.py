"""Serving against its peers: one table of ratios, measured in one run.

    python benchmarks/serving.py [--quick|--tiny] [--long] [--only latency|batching|scoring|load]
                                 [--out serving.json] [--workdir DIR]

Latency is `Session::Run` alone, timed inside TF Serving's own C++ loader (it is compiled first where
that was not done): `compact` and `serving_default` against the bare model on encoded tensors, and
against the usual design of one input, one StringLookup and one Embedding a feature. Batching is the
same for N callers at once with a row each, against one caller with N rows: what a server that joins them
could win at best, waiting and splitting not counted. Then batch scoring
against the bare SavedModel fed with ready matrices, and the local server under mixed load while
versions change (30 s; --quick 15 s; --long 10 minutes), every answer checked. `--only` measures one
of the four. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "peers")]

import numpy as np  # noqa: E402
from criteo_log import write_log  # noqa: E402

from jobs.config import load_run_config  # noqa: E402
from jobs.show.progress import say  # noqa: E402
from jobs.show.tables import table  # noqa: E402
from jobs.steps import train_run  # noqa: E402
from models.run_directory import RunDirectory  # noqa: E402
from pipeline.preprocessing.config import PreprocessConfig  # noqa: E402
from pipeline.records.data_directory import DataDirectory  # noqa: E402
from pipeline.records.encoded import model_inputs  # noqa: E402
from pipeline.schema import FeatureSchema  # noqa: E402

PARTS = ("latency", "batching", "scoring", "load")
CALLERS = (1, 2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        log_rows: of the log that both runs are trained on.
        part_rows: of one of its files; the scoring job is measured over all files less one.
        score_rows: rows of the scoring job.
        rounds: of latency.
        calls: of a round, by design and batch size.
        load_s: of the load on the server.
    """

    log_rows: int = 200_000
    part_rows: int = 50_000
    score_rows: int = 1_000_000
    rounds: int = 9
    calls: int = 500
    load_s: float = 30.0


QUICK = Extent(log_rows=50_000, score_rows=200_000, calls=100, load_s=15.0)
TINY = Extent(2_000, 1_000, 2_000, rounds=1, calls=5, load_s=3.0)
TARGETS = {
    "compact / bare, batch 1": ("<=", 1.35),
    "compact / bare, batch 64": ("<=", 1.35),
    "serving_default / bare, batch 1": ("<=", 1.8),
    "serving_default / bare, batch 64": ("<=", 1.8),
    "usual design / compact, batch 1": (">=", 2.0),
    "batch scoring / bare SavedModel on tensors, rows a second": (">=", 0.8),
}


def prepare(workdir: Path, extent: Extent) -> tuple[DataDirectory, list[RunDirectory]]:
    """A Criteo-like data directory and two trained runs that differ in their seed."""
    from pipeline.preprocessing.job import preprocess

    files = [str(p) for p in write_log(workdir / "log", extent.log_rows, extent.part_rows)]
    config = PreprocessConfig()
    data = preprocess(FeatureSchema.load("criteo"), files, workdir / "data", config)
    runs = []
    for seed in (0, 1):
        settings = [f"train.seed={seed}", "train.global_batch_size=4096", "model.name=dcn_v2"]
        trained = train_run(data, load_run_config(None, settings), workdir / f"run-{seed}")
        runs.append(trained.run)
    return data, runs


# ------------------------------------------------------------------------------------- latency


def latency(
    data: DataDirectory, run: RunDirectory, export_dir: Path, workdir: Path, extent: Extent
) -> dict[str, Any]:
    """Median Session::Run in microseconds by design and batch size."""
    from usual_design import save_bare_model, save_usual_design

    from pipeline.statistics.feature_statistics import FeatureStatistics
    from pipeline.transform.parity_sample import real_rows
    from serving.loader.cpp_loader import time_with_loader
    from serving.loader.loader_choice import find_loader, loader_cache

    if extent is TINY and not any(loader_cache().glob("score_requests-*")):
        return {"skipped": "the loader is not compiled yet, which takes minutes"}
    loader = find_loader("auto", say)
    if loader.binary is None:
        return {"skipped": loader.reason}
    model = run.load_model(dropout=0.0)
    bare = save_bare_model(model, workdir / "bare")
    statistics = FeatureStatistics.load(data.path / "statistics")
    usual = save_usual_design(data.schema, statistics, run.model_config, workdir / "usual")
    raw, encoded = real_rows(data, 64)
    inputs = model_inputs(encoded)
    sizes = (1, 64)
    designs = {
        "bare": (bare, "serving_default", [{k: v[:n] for k, v in inputs.items()} for n in sizes]),
        "compact": (export_dir, "compact", [raw.take(slice(0, n)).compact() for n in sizes]),
        "serving_default": (
            export_dir,
            "serving_default",
            [raw.take(slice(0, n)).by_name() for n in sizes],
        ),
        "usual design": (
            usual,
            "serving_default",
            [raw.take(slice(0, n)).by_name() for n in sizes],
        ),
    }
    # Many short rounds: the designs of one round meet the machine at about the same speed.
    medians: dict[str, dict[str, list[float]]] = {n: {str(s): [] for s in sizes} for n in designs}
    least: dict[str, dict[str, float]] = {n: {str(s): np.inf for s in sizes} for n in designs}
    for repetition in range(extent.rounds):
        say(f"latency, round {repetition + 1} of {extent.rounds}")
        for name, (path, signature, requests) in designs.items():
            timings = time_with_loader(
                loader.binary, path, signature, requests, repeat=extent.calls
            )
            for size, timing in zip(map(str, sizes), timings, strict=True):
                medians[name][size].append(timing.median_ns / 1000)
                least[name][size] = min(least[name][size], timing.min_ns / 1000)
    middle = {n: {s: float(np.median(v)) for s, v in by.items()} for n, by in medians.items()}
    return {"rounds_us": medians, "median_us": middle, "min_us": least, "calls": extent.calls}


# ------------------------------------------------------------------------------------- batching


def batching(data: DataDirectory, export_dir: Path, extent: Extent) -> dict[str, Any]:
    """N callers with a row each against one caller with N rows, by N: microseconds and rows a second."""
    from pipeline.transform.parity_sample import real_rows
    from serving.loader.cpp_loader import time_with_loader
    from serving.loader.loader_choice import find_loader

    loader = find_loader("auto", say)
    if loader.binary is None:
        return {"skipped": loader.reason}
    raw, _ = real_rows(data, max(CALLERS))
    row = raw.take(slice(0, 1)).compact()
    found: dict[str, Any] = {}
    for callers in CALLERS:
        rounds: dict[str, list[list[float]]] = {"alone": [], "joined": []}
        joined = raw.take(slice(0, callers)).compact()
        for repetition in range(extent.rounds):
            say(f"batching, {callers} callers, round {repetition + 1} of {extent.rounds}")
            for name, request, threads in (("alone", row, callers), ("joined", joined, 1)):
                (timing,) = time_with_loader(
                    loader.binary,
                    export_dir,
                    "compact",
                    [request],
                    repeat=extent.calls,
                    callers=threads,
                )
                rows_per_s = timing.calls_per_s * (callers if name == "joined" else 1)
                figures = [timing.median_ns / 1e3, timing.p99_ns / 1e3, rows_per_s]
                rounds[name].append(figures)
        found[str(callers)] = {
            name: dict(
                zip(
                    ("median_us", "p99_us", "rows_per_s"),
                    np.median(np.array(each), axis=0).tolist(),
                    strict=True,
                )
            )
            for name, each in rounds.items()
        }
    return {"callers": found}


# ------------------------------------------------------------------------------------- batch scoring


def scoring(data: DataDirectory, export_dir: Path, workdir: Path, extent: Extent) -> dict[str, Any]:
    """Rows a second: `clickparity score` (marginal over a small start) and the bare SavedModel."""
    from jobs.scoring import score_files
    from pipeline.transform.parity_sample import real_rows
    from serving.loader.model_session import ModelSession

    rows, part = extent.score_rows, extent.part_rows
    files = [str(p) for p in write_log(workdir / "log", rows, part)][: rows // part]
    raw, _ = real_rows(data, 1024)
    batch = raw.take(np.arange(4096) % len(raw)).compact()
    session = ModelSession(str(export_dir))
    session.ask("compact", batch, ["logit", "probability"])
    batches = max((rows - part) // 4096, 8)

    def bare() -> tuple[float, float]:
        started = time.perf_counter(), time.process_time()
        for _ in range(batches):
            session.ask("compact", batch, ["logit", "probability"])
        return time.perf_counter() - started[0], time.process_time() - started[1]

    # The bare model before and after the job: on a busy machine a wall time alone says little.
    bare_s = [bare()]
    job_s = {}
    for name, some in (("warm", files[:1]), ("one", files[:1]), ("all", files)):
        started = time.perf_counter(), time.process_time()
        score_files(export_dir, some, workdir / f"scores-{time.time_ns()}-{name}")
        job_s[name] = time.perf_counter() - started[0], time.process_time() - started[1]
    bare_s.append(bare())
    session.close()
    found: dict[str, Any] = {"rows": rows, "score_wall_s": job_s["all"][0]}
    for i, clock in enumerate(("", "_cpu")):
        marginal = job_s["all"][i] - job_s["one"][i]
        found[f"score_rows_per{clock}_s"] = (rows - part) / max(marginal, 1e-9)
        found[f"bare_rows_per{clock}_s"] = 2 * batches * 4096 / (bare_s[0][i] + bare_s[1][i])
    return found


# ------------------------------------------------------------------------------------- the server


def mixed_load(
    data: DataDirectory, exports: list[Path], workdir: Path, seconds: float
) -> dict[str, Any]:
    """Callers over gRPC and REST while versions change; every logit checked against its version's."""
    from server_load import run_load

    from pipeline.transform.parity_sample import real_rows
    from serving.loader.fresh_process import score_in_fresh_process
    from serving.repository.repository import ModelRepository
    from serving.repository.version_check import loads_and_answers

    raw, _ = real_rows(data, 256)
    expected = {}
    for export_dir in exports:
        (answer,) = score_in_fresh_process(export_dir, [("serving_default", raw.by_name())])
        expected[answer["model_fingerprint"][0]] = answer["logit"]
        loads_and_answers(export_dir)
    repository = ModelRepository(workdir / "models", "ctr")
    repository.publish(exports[0], force=True)
    swaps: list[float] = []

    def publish(turn: int) -> None:
        repository.publish(exports[turn % len(exports)], force=True)
        repository.prune(3)
        swaps.append(time.monotonic())

    return run_load(workdir / "models", raw, expected, publish, swaps, seconds=seconds)


# ------------------------------------------------------------------------------------- the table


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """What TARGETS judges, of the parts that were measured."""
    result = {}
    us = found.get("latency", {}).get("rounds_us")
    if us:

        def paired(over: str, under: str, size: str) -> float:
            return float(np.median(np.array(us[over][size]) / np.array(us[under][size])))

        for name in ("compact", "serving_default"):
            for size in ("1", "64"):
                result[f"{name} / bare, batch {size}"] = paired(name, "bare", size)
        result["usual design / compact, batch 1"] = paired("usual design", "compact", "1")
        least = found["latency"]["min_us"]
        for size in ("1", "64"):
            name = f"compact / bare, batch {size}, fastest calls"
            result[name] = least["compact"][size] / least["bare"][size]
    if "scoring" in found:
        score = found["scoring"]
        result["batch scoring / bare SavedModel on tensors, rows a second"] = (
            score["score_rows_per_s"] / score["bare_rows_per_s"]
        )
        result["the same by processor time"] = (
            score["score_rows_per_cpu_s"] / score["bare_rows_per_cpu_s"]
        )
    return result


def show(found: dict[str, Any]) -> str:
    """The tables of the parts that were measured."""
    rows = []
    for name, value in found["ratios"].items():
        sign, bar = TARGETS.get(name, ("", None))
        holds = bar is None or (value <= bar if sign == "<=" else value >= bar)
        met = "" if bar is None else "yes" if holds else "NO"
        rows.append([name, f"{value:.2f}", f"{sign} {bar}" if bar else "", met])
    parts = [table(["ratio", "measured", "target", "met"], rows)] if rows else []
    if "latency" in found:
        us = found["latency"].get("median_us")
        lines = [[n, f"{v['1']:.0f}", f"{v['64']:.0f}"] for n, v in (us or {}).items()]
        parts.append(
            table(["median Session::Run, us", "batch 1", "batch 64"], lines)
            if us
            else f"latency: skipped; {found['latency']['skipped']}"
        )
    if "batching" in found:
        of = found["batching"].get("callers", {})
        lines = [
            [n, *(f"{v[k][f]:,.0f}" for k in v for f in ("median_us", "p99_us", "rows_per_s"))]
            for n, v in of.items()
        ]
        head = ["callers", "alone: us", "p99", "rows/s", "joined: us", "p99", "rows/s"]
        skipped = found["batching"].get("skipped")
        parts.append(f"batching skipped: {skipped}" if skipped else table(head, lines))
    if "scoring" in found:
        score = found["scoring"]
        parts.append(
            f"batch scoring: {score['score_rows_per_s']:,.0f} rows/s, the bare SavedModel "
            f"{score['bare_rows_per_s']:,.0f} rows/s ({score['rows']:,} rows)"
        )
    if "server" in found:
        load = found["server"]
        figures = [
            [n.replace("_", " "), v] for n, v in load.items() if not isinstance(v, (list, dict))
        ]
        parts.append(table(["local server, mixed load", ""], figures))
    return "\n".join(parts)


@contextlib.contextmanager
def _workdir(path: str | None) -> Iterator[Path]:
    if path is not None:
        Path(path).mkdir(parents=True, exist_ok=True)
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="clickparity-bench-") as scratch:
        yield Path(scratch)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller, for a look")
    parser.add_argument("--tiny", action="store_true", help="hundreds of rows: does it run?")
    parser.add_argument("--long", action="store_true", help="10 minutes of load on the server")
    parser.add_argument("--only", choices=PARTS, help="measure this part alone")
    parser.add_argument("--out", default="serving.json")
    parser.add_argument("--workdir", help="keeps what was made; default: a temporary directory")
    arguments = parser.parse_args(argv)
    from models.trained_run import TrainedRun
    from serving.export.build import build_export

    extent = TINY if arguments.tiny else QUICK if arguments.quick else Extent()
    with _workdir(arguments.workdir) as workdir:
        data, runs = prepare(workdir, extent)
        say("building the exports")
        exports = [build_export(TrainedRun(run, data)) for run in runs]
        found: dict[str, Any] = {
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "load_average_at_start": os.getloadavg()[0],
        }
        parts = PARTS if arguments.only is None else (arguments.only,)
        if "latency" in parts:
            found["latency"] = latency(data, runs[0], exports[0], workdir, extent)
        if "batching" in parts:
            found["batching"] = batching(data, exports[0], extent)
        if "scoring" in parts:
            say("batch scoring")
            found["scoring"] = scoring(data, exports[0], workdir, extent)
        if "load" in parts:
            seconds = 600.0 if arguments.long else extent.load_s
            say(f"local server under load for {seconds:.0f} s")
            found["server"] = mixed_load(data, exports, workdir, seconds)
        found["ratios"] = ratios(found)
    Path(arguments.out).write_text(json.dumps(found, indent=1) + "\n")
    print(show(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
