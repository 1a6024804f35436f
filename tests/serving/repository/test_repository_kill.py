"""Publishers killed with SIGKILL, at random moments and at each file operation, under a watcher.

The watcher is a process of its own with its own hashing: a version that it sees under an integer
name must be one of the exports, byte for byte.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.export.manifest import verify_manifest, write_manifest
from serving.repository.repository import ModelRepository

TOOL = str(Path(__file__).with_name("publish_killer.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, TOOL, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


def answer_of(process: subprocess.Popen[str], timeout_s: float) -> dict:
    try:
        out, _ = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    assert process.returncode == 0
    return json.loads(out)


def make_exports(folder: Path, size: int = 40_000) -> list[Path]:
    exports = []
    for fingerprint in "ABC":
        export = folder / f"export_{fingerprint}"
        for path in ("saved_model.pb", "variables/variables.index", "assets/v0", "assets/v1"):
            (export / path).parent.mkdir(parents=True, exist_ok=True)
            (export / path).write_bytes(f"{fingerprint} {path} ".encode() * (size // 20))
        write_manifest(export, fingerprint=fingerprint, extra={})
        exports.append(export)
    return exports


SAVED_MODELS = """
import json, sys
from pathlib import Path
import tensorflow as tf
from serving.export.manifest import write_manifest
for weight in range(3):
    module = tf.Module()
    module.weight = tf.Variable([float(weight + 1)] * 5000)
    initializer = tf.lookup.KeyValueTensorInitializer(["a"], tf.constant([weight * 10.0]))
    module.table = tf.lookup.StaticHashTable(initializer, 0.0)
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def score(x):
        return {"score": x * module.weight[4999] + module.table.lookup(tf.constant("a"))}
    path = Path(sys.argv[1]) / f"export_{weight}"
    tf.saved_model.save(module, str(path), signatures=score)
    write_manifest(path, fingerprint=str(weight), extra={})
    path.with_suffix(".score.json").write_text(json.dumps(3.0 * (weight + 1) + 10.0 * weight))
"""


def kill_under_watch(tmp_path: Path, exports: list[Path], kills: int, timeout_s: float) -> dict:
    models, stop = tmp_path / "models", tmp_path / "stop"
    watcher = start("watch", models, stop, *exports)
    try:
        killer = answer_of(start("kill", models, kills, 20_260, *exports), timeout_s)
    finally:
        stop.touch()
    watched = answer_of(watcher, timeout_s)
    assert watched["bad"] == []
    print(f"\nkiller: {killer}; watched: {watched}")
    assert killer["killed"]["publish"] == kills
    # Kills that all came too early would prove nothing.
    assert killer["done"]["publish"] > kills // 40
    assert watched["versions"] > kills // 40

    repository = ModelRepository(models, "ctr")
    repository.publish(exports[0], force=True)
    left = [name for name in os.listdir(models / "ctr") if name.startswith(".tmp-")]
    assert left == []
    for version in repository.versions():
        assert version.problem is None
        verify_manifest(models / "ctr" / str(version.number))
    return watched


def test_killed_at_random_moments(tmp_path: Path) -> None:
    kill_under_watch(tmp_path, make_exports(tmp_path), kills=60, timeout_s=120)


def test_killed_at_each_file_operation(tmp_path: Path) -> None:
    exports = make_exports(tmp_path, size=100)
    result = answer_of(start("sweep", tmp_path / "models", 0, 0, *exports), timeout_s=250)
    # A publish of five files opens, copies and flushes each: far more operations than these.
    assert result["points"]["publish"] > 30
    assert result["points"]["rollback"] > 30
    assert result["points"]["prune"] > 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_kills_and_not_one_wrong_score(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SAVED_MODELS, str(tmp_path)], check=True, env=ENVIRONMENT)
    exports = [tmp_path / f"export_{weight}" for weight in range(3)]
    watched = kill_under_watch(tmp_path, exports, kills=1000, timeout_s=1500)
    assert watched["loads"] > 20
