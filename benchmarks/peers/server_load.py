"""Mixed load on `clickparity serve` in a process of its own, while versions change under it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jobs.server_process import served
from jobs.show.progress import say
from pipeline.transform.raw_rows import RawRows
from serving.client.client import PredictClient

SWAP_EVERY_S, NEAR_SWAP_S, SAY_EVERY_S = 6.0, 3.0, 30.0
BATCH_SIZES = (1, 1, 1, 16, 64)


def run_load(
    models_dir: Path,
    raw: RawRows,
    expected: dict[bytes, np.ndarray],
    publish: Callable[[int], None],
    swaps: list[float],
    *,
    seconds: float,
) -> dict[str, Any]:
    """Calls until `seconds` are over; a version is published every `SWAP_EVERY_S`.

    Args:
        models_dir: one model, "ctr", with a version.
        raw: the rows that are asked for.
        expected: logits of all of them by the fingerprint that an answer carries.
        publish: publishes the next version; called with 1, 2, ...
        swaps: gets the time of each publishing.
        seconds: how long.
    """
    calls: list[tuple[float, float]] = []  # (when, seconds)
    errors: list[str] = []
    wrong: list[float] = []
    seen: set[bytes] = set()
    stop = threading.Event()

    def caller(address: str, protocol: Any, seed: int) -> None:
        rng = np.random.default_rng(seed)
        with PredictClient(address, "ctr", protocol=protocol, timeout_s=30) as client:
            while not stop.is_set():
                size = int(rng.choice(BATCH_SIZES))
                start = int(rng.integers(0, len(raw) - size + 1))
                rows = raw.take(slice(start, start + size)).by_name()
                started_s = time.monotonic()
                try:
                    answer = client.predict(rows)
                except Exception as error:  # every failure is a finding
                    errors.append(f"{protocol}: {error}")
                    continue
                calls.append((started_s, time.monotonic() - started_s))
                names = set(answer["model_fingerprint"].tolist())
                name = next(iter(names))
                name = name.encode() if isinstance(name, str) else name
                seen.add(name)
                if name not in expected:
                    wrong.append(float("inf"))  # nobody published this version
                    continue
                truth = expected[name][start : start + size]
                gap = float(np.abs(answer["logit"] - truth).max())
                if len(names) != 1 or not gap <= 1e-5:
                    wrong.append(gap)

    log = models_dir.parent / "server.log"
    with served(models_dir, "ctr", log, timeout_s=180) as server:
        threads = [
            threading.Thread(target=caller, args=(address, protocol, seed))
            for seed, (address, protocol) in enumerate(
                [
                    (server.grpc_address, "grpc"),
                    (server.rest_address, "rest"),
                    (server.grpc_address, "grpc"),
                ]
            )
        ]
        started_s = time.monotonic()
        for thread in threads:
            thread.start()
        turn = 0
        told_s, resident_mb = started_s, []
        while time.monotonic() - started_s < seconds:
            time.sleep(min(SWAP_EVERY_S, seconds / 3))
            turn += 1
            publish(turn)
            resident_mb.append(server.resident_mb())
            if time.monotonic() - told_s >= SAY_EVERY_S:
                told_s = time.monotonic()
                say(
                    f"load: {told_s - started_s:.0f} of {seconds:.0f} s, {len(calls):,} answers, "
                    f"{len(errors)} errors, {len(wrong)} wrong scores, {turn} versions published, "
                    f"the server has {resident_mb[-1]:.0f} MB"
                )
        took_s = time.monotonic() - started_s
        stop.set()
        for thread in threads:
            thread.join()
    ms = np.array([s for _, s in calls]) * 1000
    when = np.array([w for w, _ in calls])
    near = np.zeros(len(when), bool)
    for swap in swaps:
        near |= (when >= swap - 0.5) & (when <= swap + NEAR_SWAP_S)
    return {
        "seconds": took_s,
        "requests": len(calls),
        "errors": len(errors),
        "first_errors": errors[:3],
        "wrong_scores": len(wrong),
        "swaps": len(swaps),
        "versions_seen": len(seen),
        "resident_mb_after_the_first_swap": resident_mb[0],
        "resident_mb_at_the_end": resident_mb[-1],
        "p50_ms": float(np.percentile(ms, 50)),
        "p99_ms": float(np.percentile(ms, 99)),
        "p99_across_a_swap_ms": float(np.percentile(ms[near], 99)) if near.any() else None,
    }
