"""Replicas, sums over them, float32 matrix products: explicit, by config, and the same result."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models.training.strategy import make_strategy, per_replica_batch_size
from pipeline.errors import ConfigError
from tests.python_process import answer_of

SCRIPT = Path(__file__).with_name("tiny_training.py")
_spec = importlib.util.spec_from_file_location("tiny_training_devices", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)


def test_a_batch_is_shared_equally_or_refused():
    assert per_replica_batch_size(512, 4) == 128
    with pytest.raises(ConfigError, match=r"multiple of the number of replicas.*50 rows over 4"):
        per_replica_batch_size(50, 4)


def test_a_refused_batch_names_one_that_works():
    with pytest.raises(ConfigError, match=r"train\.global_batch_size=52"):
        per_replica_batch_size(51, 4)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("nccl", tf.distribute.NcclAllReduce),
        ("hierarchical_copy", tf.distribute.HierarchicalCopyAllReduce),
        ("reduction_to_one", tf.distribute.ReductionToOneDevice),
    ],
)
def test_the_sum_over_replicas_is_the_configs(name, kind):
    assert isinstance(make_strategy(["CPU:0"], name).extended._cross_device_ops, kind)


@pytest.mark.parametrize("matmul, is_on", [("highest", False), ("default", True)])
def test_tf32_is_off_unless_it_is_asked_for(tmp_path, matmul, is_on):
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        tiny.tiny_training(tmp_path / "run", train={"epochs": 1, "matmul": matmul})
        assert tf.config.experimental.tensor_float_32_execution_enabled() is is_on
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def test_what_a_person_and_tensorboard_see(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal: the live line, too
    monkeypatch.setenv("COLUMNS", "200")
    tiny.tiny_training(tmp_path / "run", train={"epochs": 1}, progress=True)
    said = capsys.readouterr().err
    assert "global batch 50 rows: 50 on each of 1 replica" in said
    for part in ("20/20 steps", "examples/s", "loss 0.", "validation log_loss 0.", "auc 0."):
        assert part in said
    (events,) = (tmp_path / "run" / "logs").glob("events.out.tfevents.*")
    steps: dict[str, list[int]] = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            steps.setdefault(value.tag, []).append(event.step)
    assert steps["train/loss"] == steps["train/examples_per_s"] == [4, 8, 12, 16, 20]
    assert steps["validation/auc"] == steps["validation/log_loss"] == [20]


def replicas(path: Path, count: int, **options: dict) -> dict[str, np.ndarray]:
    arguments = [f"--{name}={json.dumps(value)}" for name, value in options.items()]
    answer_of([SCRIPT, path, f"--replicas={count}", *arguments], timeout_s=200)
    return tiny.weights_of(path)


@pytest.mark.slow
@pytest.mark.parametrize("cross_replica", ["hierarchical_copy", "reduction_to_one"])
def test_every_way_to_sum_over_replicas_trains_the_same(tmp_path, cross_replica):
    model = {"dropout": 0.0}
    one = replicas(tmp_path / "one", 1, train={"epochs": 1}, model=model)
    train = {"epochs": 1, "cross_replica": cross_replica}
    two = replicas(tmp_path / "two", 2, train=train, model=model)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=2e-5, err_msg=name)


RESUMED = {
    "host tables": ({"tables_on": "host", "embedding_optimizer": "lazy_adam"}, {}),
    "batch norm": ({"reestimate_batch_statistics": True}, {"norm": "batch"}),
    "float16": ({"precision": "float16", "embedding_optimizer": "ftrl"}, {}),
    "schedule": (
        {"schedule": {"kind": "cosine", "warmup_steps": 5}, "embedding_optimizer": "lazy_adam"},
        {},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit_with_every_state(tmp_path, case):
    train, model = RESUMED[case]
    train = {**train, "checkpoint_every_steps": 6}
    tiny.tiny_training(tmp_path / "unbroken", train=train, model=model)
    whole = tiny.source()
    broken = dataclasses.replace(
        whole, training=lambda epoch, step: whole.training(epoch, step).take(15 - step)
    )
    with pytest.raises(tf.errors.OutOfRangeError):
        tiny.tiny_training(tmp_path / "broken", train=train, model=model, batches=broken)
    tiny.tiny_training(tmp_path / "broken", train=train, model=model)
    one, other = tiny.weights_of(tmp_path / "unbroken"), tiny.weights_of(tmp_path / "broken")
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
