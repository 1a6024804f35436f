"""Processes for test_repository_kill: one publishes and is killed, one watches as a server would.

`python publish_killer.py kill MODELS KILLS SEED EXPORT...` forks a child for each attempt, kills it
at a random moment until KILLS publishes have died, and prints what happened as JSON.
`... sweep ...` kills at each single file operation instead, one after the other.
`... watch MODELS STOP_FILE EXPORT...` polls until STOP_FILE exists and prints every version it saw
that was not, byte for byte, one of the exports; with a `score.json` in the exports (fingerprint's
expected score for x = 3) it also loads each version once, as TF Serving would, and compares.
No Keras, and TensorFlow only in that last case.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from serving.export.manifest import MANIFEST_PATH
from serving.repository.repository import ModelRepository


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file but the manifest, which a rollback writes anew."""
    found = {}
    for folder, _, names in os.walk(directory, onerror=_raise):
        for name in names:
            path = Path(folder, name)
            found[path.relative_to(directory).as_posix()] = hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
    if found and MANIFEST_PATH not in found:
        found["no manifest"] = ""
    found.pop(MANIFEST_PATH, None)
    return found


def _raise(error: OSError) -> None:
    raise error


def integer_children(model: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(model) if name.isdigit())
    except FileNotFoundError:
        return []


def bad_versions(model: Path, good: list[dict[str, str]]) -> list[str]:
    return [
        str(number)
        for number in integer_children(model)
        if digests(model / str(number)) not in good
    ]


def watch(model: Path, stop: Path, exports: list[Path]) -> dict:
    good = [digests(export) for export in exports]
    scores = [
        json.loads(path.read_text())
        if (path := export.with_suffix(".score.json")).exists()
        else None
        for export in exports
    ]
    checks, loads, seen, bad = 0, 0, set(), []
    while True:
        last_round = stop.exists()
        numbers = integer_children(model)
        for number in numbers:
            if number in seen and number != numbers[-1]:
                continue  # the live one is read again and again, the others at first sight
            version = model / str(number)
            try:
                found = digests(version)
            except FileNotFoundError:
                found = {}
            if found not in good:
                if version.exists():  # else it was pruned while it was read
                    bad.append(f"{number}: {sorted(found)}")
                continue
            score = scores[good.index(found)]
            if number not in seen and score is not None:
                answer = load_and_score(version)
                if version.exists():
                    loads += 1
                    if answer != score:
                        bad.append(f"{number} scored {answer}, not {score}")
            seen.add(number)
            checks += 1
        if last_round:
            return {"checks": checks, "versions": len(seen), "loads": loads, "bad": bad}
        time.sleep(0.001)


def load_and_score(version: Path) -> float | str:
    import tensorflow as tf

    try:
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version))
            signature = meta.signature_def["serving_default"]
            output = signature.outputs["score"].name
            return float(session.run(output, {signature.inputs["x"].name: [3.0]})[0])
    except (OSError, ValueError, tf.errors.OpError) as error:  # ValueError: variables gone
        return repr(error)


def in_child(work: Callable[[], object], wait_s: float | None) -> tuple[bool, float]:
    """Forks, works, and kills the child after `wait_s`; returns (was it killed, seconds)."""
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    if wait_s is not None:
        time.sleep(wait_s)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - start
    if os.WIFSIGNALED(status):
        return True, seconds
    if os.WEXITSTATUS(status):
        raise SystemExit("a publisher failed; its traceback is above")
    return False, seconds


def kill_at_random(models: Path, kills: int, seed: int, exports: list[Path]) -> dict:
    chance = random.Random(seed)
    repository = ModelRepository(models, "ctr")
    for export in exports:
        repository.publish(export)
    whole_s = statistics.median(
        in_child(lambda: repository.publish(chance.choice(exports), force=True), None)[1]
        for _ in range(5)
    )
    killed: Counter[str] = Counter()
    done: Counter[str] = Counter()
    while killed["publish"] < kills:
        operation = chance.choices(["publish", "prune", "rollback"], [90, 6, 4])[0]
        export = chance.choice(exports)
        work: Callable[[], object] = {
            "publish": lambda export=export: repository.publish(export, force=True),
            "prune": lambda: repository.prune(keep=3),
            "rollback": lambda: repository.rollback(to=repository.versions()[0].number),
        }[operation]
        was_killed, _ = in_child(work, chance.uniform(0, 1.3 * whole_s))
        (killed if was_killed else done)[operation] += 1
        # Keeps aiming at the whole of a publish when the machine gets slower or faster.
        whole_s *= 1.01 if was_killed else 0.98
    return {"killed": dict(killed), "done": dict(done), "whole_ms": 1000 * whole_s}


def killed_at(point: int, work: Callable[[], object]) -> None:
    """Works until Python announces its `point`-th file operation, and dies before it."""
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event.startswith(("os.", "open", "shutil.", "fcntl.")):
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    work()


def kill_at_each_operation(models: Path, exports: list[Path]) -> dict:
    """Kills itself at the 1st, 2nd, ... file operation of a publish, a rollback and a prune."""
    model = models / "ctr"
    good = [digests(export) for export in exports]
    repository = ModelRepository(models, "ctr")
    for export in exports:
        repository.publish(export)
    points: dict[str, int] = {}
    operations: dict[str, Callable[[], object]] = {
        "publish": lambda: repository.publish(exports[2], force=True),
        "rollback": lambda: repository.rollback(to=integer_children(model)[0]),
        "prune": lambda: repository.prune(keep=1),
    }
    for name, work in operations.items():
        for point in range(1, 100_000):
            before = integer_children(model)
            was_killed, _ = in_child(functools.partial(killed_at, point, work), None)
            after = integer_children(model)
            died = f"{name} killed at operation {point}"
            if wrong := bad_versions(model, good):
                raise SystemExit(f"{died} left {wrong}")
            highest = before[-1]
            if name == "prune":
                allowed = [before[place:] for place in range(len(before))]
            else:
                allowed = [before, [*before, highest + 1]]
            if after not in allowed:
                raise SystemExit(f"{died} made versions {before} into {after}")
            # The next publisher is not blocked and clears the remains.
            if repository.publish(exports[point % 2], force=True).number != after[-1] + 1:
                raise SystemExit(f"{died}: wrong next number")
            if list(model.glob(".tmp-*")):
                raise SystemExit(f"{died} left {os.listdir(model)}")
            if not was_killed:
                points[name] = point - 1
                break
            if len(after) > 3:
                repository.prune(keep=2)
    return {"points": points}


def main(arguments: list[str]) -> None:
    mode, models = arguments[0], Path(arguments[1])
    if mode == "watch":
        result = watch(models / "ctr", Path(arguments[2]), [Path(path) for path in arguments[3:]])
    else:
        exports = [Path(path) for path in arguments[4:]]
        if mode == "kill":
            result = kill_at_random(models, int(arguments[2]), int(arguments[3]), exports)
        else:
            result = kill_at_each_operation(models, exports)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
