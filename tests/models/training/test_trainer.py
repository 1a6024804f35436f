"""The trainer learns, repeats itself, resumes exactly, stops early and says what is wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models.config.train import parse_train_config
from models.run_directory import RunDirectory
from models.training.scoring import evaluate_batches
from models.training.trainer import BatchSource
from pipeline.errors import ConfigError, DivergedError, Interrupted
from pipeline.strict_config import Changes, options_that_change
from tests.damage import flip_a_bit

SCRIPT = Path(__file__).with_name("tiny_training.py")
_spec = importlib.util.spec_from_file_location("tiny_training", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = tiny.weights_of(one), tiny.weights_of(other)
    assert list(first) == list(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("unbroken")
    tiny.tiny_training(path)
    return path


def test_it_learns_and_leaves_what_a_run_leaves(unbroken):
    run = RunDirectory.open(unbroken)
    history = run.read_history()
    assert [record["global_step"] for record in history] == [20, 40]
    assert history[1]["validation"]["auc"] > 0.75
    assert history[1]["train_loss"] < history[0]["train_loss"]
    assert run.read_json("training.json")["loss"] == {"kind": "bce"}
    assert run.spec == tiny.SPEC
    assert list(run.logs.glob("events.out.tfevents.*"))


def test_what_is_saved_is_what_was_validated(unbroken):
    run = RunDirectory.open(unbroken)
    predictions = evaluate_batches(run.load_model(), tiny.source().validation())
    label, logit = predictions.label.astype(int), predictions.logit.astype(float)
    above = (logit[label == 1][:, None] > logit[label == 0][None, :]).mean()
    assert above == pytest.approx(run.read_history()[1]["validation"]["auc"], abs=1e-9)
    loss = -np.log(1 / (1 + np.exp(-np.where(label == 1, logit, -logit)))).mean()
    assert loss == pytest.approx(run.read_history()[1]["validation"]["log_loss"], abs=1e-9)


def test_the_same_seed_gives_the_same_bits_however_steps_are_bundled(unbroken, tmp_path):
    tiny.tiny_training(tmp_path / "run", train={"steps_per_execution": 7})
    assert_same_weights(unbroken, tmp_path / "run")


def test_options_that_are_stated_to_change_nothing_change_no_bit(unbroken, tmp_path):
    others = {
        "steps_per_execution": 3,
        "checkpoint_every_steps": 7,
        "keep_checkpoints": 5,
        "evaluation_batch_size": 64,
    }
    config = parse_train_config({})
    steps = (Changes.NOTHING, Changes.EVALUATION)
    assert set(others) == {name for s in steps for name in options_that_change(config, s)}
    tiny.tiny_training(tmp_path / "run", train=others)
    assert_same_weights(unbroken, tmp_path / "run")


def test_another_seed_gives_other_weights(unbroken, tmp_path):
    tiny.tiny_training(tmp_path / "run", train={"seed": 1})
    with pytest.raises(AssertionError):
        assert_same_weights(unbroken, tmp_path / "run")


def breaking_source(at_step: int) -> BatchSource:
    """Gives out `at_step` batches of the first epoch and then fails like a lost disk."""
    whole = tiny.source()

    def training(epoch: int, first_step: int) -> tf.data.Dataset:
        return whole.training(epoch, first_step).take(at_step - first_step)

    return dataclasses.replace(whole, training=training)


def test_resuming_after_a_crash_equals_never_having_crashed(unbroken, tmp_path):
    path = tmp_path / "run"
    train = {"checkpoint_every_steps": 6}
    with pytest.raises(tf.errors.OutOfRangeError):
        tiny.tiny_training(path, train=train, batches=breaking_source(15))
    assert [p.name for p in sorted((path / "checkpoints").iterdir())] == [
        "step-0000000006",
        "step-0000000012",
    ]
    tiny.tiny_training(path, train=train)
    assert_same_weights(unbroken, path)
    ours, theirs = (RunDirectory.open(p).read_history() for p in (path, unbroken))
    for a, b in zip(ours, theirs, strict=True):
        assert a["validation"] == b["validation"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-9)


def test_a_corrupt_newest_checkpoint_falls_back_and_says_so(unbroken, tmp_path, caplog):
    path = tmp_path / "run"
    train = {"checkpoint_every_steps": 6}
    with pytest.raises(tf.errors.OutOfRangeError):
        tiny.tiny_training(path, train=train, batches=breaking_source(15))
    newest = path / "checkpoints" / "step-0000000012"
    values = next(newest.glob("variables.data-*"))
    flip_a_bit(values)
    with caplog.at_level(logging.WARNING, logger="models.training.checkpoints"):
        tiny.tiny_training(path, train=train)
    assert "step-0000000012 is corrupt" in caplog.text
    assert_same_weights(unbroken, path)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    for _ in range(600):
        if path.exists():
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.1)
    raise AssertionError(f"{path} never came")


def start(path: Path, *options: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[3]), *sys.path])}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(path), *options],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


SAVING_OFTEN = {"checkpoint_every_steps": 8}


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict[signal.Signals, tuple[Path, int, str]]:
    """Run directory, exit code and stderr of processes killed at step 22, by signal."""
    options = ("--pause-at", "22", "--train", json.dumps(SAVING_OFTEN))
    signals = [signal.SIGTERM, signal.SIGKILL]
    paths = {number: tmp_path_factory.mktemp(number.name) / "run" for number in signals}
    processes = {number: start(paths[number], *options) for number in signals}
    results = {}
    for number, process in processes.items():
        wait_for(paths[number] / "paused", process)
        process.send_signal(number)
    for number, process in processes.items():
        _, said = process.communicate(timeout=60)
        results[number] = (paths[number], process.returncode, said)
    return results


def test_sigterm_saves_and_the_next_process_goes_on(unbroken, killed):
    path, code, said = killed[signal.SIGTERM]
    assert code == Interrupted.exit_code
    assert "the state is saved" in said
    assert max(p.name for p in (path / "checkpoints").glob("step-*")) > "step-0000000020"
    assert not (path / "weights.npz").exists()
    tiny.tiny_training(path, train=SAVING_OFTEN)
    assert_same_weights(unbroken, path)


def test_sigkill_loses_no_more_than_the_last_interval(unbroken, killed):
    path, code, _ = killed[signal.SIGKILL]
    assert code == -signal.SIGKILL
    steps = sorted(p.name for p in (path / "checkpoints").glob("step-*"))
    assert steps == ["step-0000000016", "step-0000000020"]  # an epoch's end saves, too
    assert not (path / "weights.npz").exists()
    tiny.tiny_training(path, train=SAVING_OFTEN)
    assert_same_weights(unbroken, path)


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    whole = tiny.source()

    def worse_by_the_epoch() -> tf.data.Dataset:
        return whole.validation().map(lambda batch: {**batch, "label": 1 - batch["label"]})

    source = dataclasses.replace(whole, validation=worse_by_the_epoch)
    train = {"epochs": 9, "early_stopping": {"metric": "log_loss", "patience": 2}}
    result = tiny.tiny_training(tmp_path / "run", train=train, batches=source)
    losses = [record["validation"]["log_loss"] for record in result.history]
    assert losses == sorted(losses)
    assert (result.epochs, result.best_epoch) == (3, 0)
    run = RunDirectory.open(tmp_path / "run")
    predictions = evaluate_batches(run.load_model(), worse_by_the_epoch())
    signed = np.where(predictions.label == 1, predictions.logit, -predictions.logit).astype(float)
    assert np.logaddexp(0, -signed).mean() == pytest.approx(losses[0], abs=1e-9)


def test_early_stopping_without_validation_rows_is_refused(tmp_path):
    source = dataclasses.replace(tiny.source(), validation=None)
    with pytest.raises(ConfigError, match="needs validation rows"):
        tiny.tiny_training(tmp_path / "run", train={"early_stopping": True}, batches=source)


def test_a_loss_that_is_not_finite_stops_with_a_remedy(tmp_path):
    train = {"learning_rate": 1e30, "optimizer": "sgd"}
    with pytest.raises(DivergedError, match=r"must stay finite; got .* Lower train.learning_rate"):
        tiny.tiny_training(tmp_path / "run", model={"norm": "none"}, train=train)


def test_rows_of_weight_0_change_nothing(tmp_path):
    whole = tiny.source()

    def spoil(batch):
        """Doubles every batch with rows of weight 0 and the wrong label."""
        other = {**batch, "label": 1 - batch["label"], "weight": 0 * batch["weight"]}
        return {name: tf.concat([batch[name], other[name]], axis=0) for name in batch}

    spoilt = dataclasses.replace(whole, training=lambda e, s: whole.training(e, s).map(spoil))
    model = {"dropout": 0.0}
    tiny.tiny_training(tmp_path / "a", model=model)
    tiny.tiny_training(tmp_path / "b", model=model, batches=spoilt)
    one, other = tiny.weights_of(tmp_path / "a"), tiny.weights_of(tmp_path / "b")
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-4, err_msg=name)
    assert RunDirectory.open(tmp_path / "b").read_history()[0]["train_loss"] == pytest.approx(
        RunDirectory.open(tmp_path / "a").read_history()[0]["train_loss"], abs=1e-5
    )
    assert math.isfinite(sum(float(np.abs(value).sum()) for value in one.values()))
