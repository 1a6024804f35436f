"""The averaged weights: golden numbers by hand, recomputed from recorded iterates, and resumed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.config.model import parse_model_config
from models.config.train import parse_train_config
from models.optimizers import RowAveraging, RowSparseAdagrad
from models.run_directory import RunDirectory
from models.training.batch_statistics import follow_number_of_steps, reestimate_batch_statistics
from models.training.loop import Training
from models.training.strategy import distributed_batches
from tests.python_process import answer_of

_spec = importlib.util.spec_from_file_location(
    "tiny_training_averaging", Path(__file__).with_name("tiny_training.py")
)
assert _spec is not None
assert _spec.loader is not None
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

STEPS = tiny.ROWS // tiny.BATCH
MODEL = {"dropout": 0.0}


def training(path: Path, train: dict[str, Any]) -> Training:
    run = tiny.run_directory(path, MODEL, train)
    model, config = run.config["model"], run.config["train"]
    return Training(tiny.source(), parse_model_config(model), parse_train_config(config), run)


def iterates(path: Path, train: dict[str, Any], epochs: int = 1) -> list[dict[str, np.ndarray]]:
    """The weights after every step of a training without averaging."""
    whole = training(path, {**train, "averaging": "none", "early_stopping": False})
    found = []
    for epoch in range(epochs):
        batches = distributed_batches(whole.strategy, tiny.source().training(epoch, 0))
        for _ in range(STEPS):
            whole._train_steps(batches, tf.constant(1))
            found.append([weight.numpy() for weight in whole.model.trainable_variables])
    return found


def final(path: Path, train: dict[str, Any]) -> list[np.ndarray]:
    """The trainable weights that a whole training keeps."""
    tiny.tiny_training(path, train=train, model=MODEL)
    model = RunDirectory.open(path).load_model()
    return [weight.numpy() for weight in model.trainable_variables]


def test_the_mean_of_a_row_by_hand() -> None:
    # Three steps; row 0 is 1, 3, 3 after them (it rests in the third), row 1 is 5, 5, 8.
    averaging = RowAveraging()
    offset = tf.Variable([[0.0], [0.0]])
    for t, row, change in ((1, 1, 5.0), (2, 0, 2.0), (3, 1, 3.0)):
        averaging.scale = tf.constant(t - 1.0)
        averaging.add(offset, tf.constant([row]), tf.constant([[-change]]))
    last = np.array([[3.0], [8.0]])
    np.testing.assert_allclose(last + offset.numpy() / 3, [[7 / 3], [18 / 3]], rtol=1e-6)


@pytest.mark.parametrize("embedding_optimizer", ["adagrad", "lazy_adam", "adam"])
@pytest.mark.parametrize("tables_on", ["device", "host"])
def test_the_tail_is_the_mean_of_the_recorded_iterates(
    tmp_path: Path, embedding_optimizer: str, tables_on: str
) -> None:
    if (embedding_optimizer, tables_on) in {("adam", "host"), ("lazy_adam", "host")}:
        pytest.skip("one optimizer with tables on the host is enough")
    train = {"embedding_optimizer": embedding_optimizer, "tables_on": tables_on, "epochs": 1}
    every = iterates(tmp_path / "raw", train)
    kept = final(tmp_path / "tail", {**train, "averaging": {"kind": "tail", "share": 0.3}})
    for index, weight in enumerate(kept):
        mean = np.mean([w[index].astype(np.float64) for w in every[-6:]], axis=0)
        np.testing.assert_allclose(weight, mean, atol=2e-6)
        assert np.abs(weight - every[-1][index]).max() > 1e-5  # not the last iterate


def test_the_second_epochs_tail_begins_anew(tmp_path: Path) -> None:
    train = {"epochs": 2, "early_stopping": False}
    every = iterates(tmp_path / "raw", train, epochs=2)
    kept = final(tmp_path / "tail", {**train, "averaging": {"kind": "tail", "share": 0.5}})
    for index, weight in enumerate(kept):
        mean = np.mean([w[index].astype(np.float64) for w in every[-10:]], axis=0)
        np.testing.assert_allclose(weight, mean, atol=2e-6)


def test_the_exponential_average_is_that_of_the_recorded_iterates(tmp_path: Path) -> None:
    train = {"epochs": 4, "early_stopping": False}
    every = iterates(tmp_path / "raw", train, epochs=4)
    share = {"kind": "exponential", "share": 0.1}  # over 2 steps: brought back to scale twice
    kept = final(tmp_path / "exponential", {**train, "averaging": share})
    for index, weight in enumerate(kept):
        average = np.zeros_like(weight, dtype=np.float64)
        for t, iterate in enumerate(every, 1):
            share_kept = min((t - 1) / t, 0.5)
            average = share_kept * average + (1 - share_kept) * iterate[index]
        np.testing.assert_allclose(weight, average, atol=5e-6)


def test_replicas_keep_the_same_average(tmp_path: Path) -> None:
    found = {}
    for count in (1, 2):
        path, train = tmp_path / str(count), json.dumps({"epochs": 1})
        script = Path(__file__).with_name("tiny_training.py")
        options = [f"--replicas={count}", f"--train={train}", f"--model={json.dumps(MODEL)}"]
        answer_of([script, path, *options], timeout_s=200)
        found[count] = tiny.weights_of(path)
    for name, weight in found[1].items():
        np.testing.assert_allclose(weight, found[2][name], atol=2e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["tail", "exponential"])
def test_training_goes_on_from_the_last_iterate(tmp_path: Path, kind: str) -> None:
    plain = {"epochs": 2, "early_stopping": False}
    before = training(tmp_path / "none", {**plain, "averaging": "none"})
    after = training(tmp_path / kind, {**plain, "averaging": kind})
    for each in (before, after):
        batches = distributed_batches(each.strategy, tiny.source().training(0, 0))
        for step in range(STEPS):
            each._train_steps(batches, tf.constant(1), tf.constant(step))
    raw = [weight.numpy() for weight in after.model.trainable_variables]
    after.average.put_in(STEPS)
    moved = [weight.numpy() for weight in after.model.trainable_variables]
    after.average.take_out(STEPS)
    for ours, theirs, averaged, last in zip(
        after.model.trainable_variables, before.model.trainable_variables, moved, raw, strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        assert (averaged != last).any()


def test_statistics_are_those_of_the_averaged_weights(tmp_path: Path) -> None:
    model = {"norm": "batch", "dropout": 0.0}
    tiny.tiny_training(tmp_path / "run", train={"epochs": 1}, model=model)
    trained = RunDirectory.open(tmp_path / "run").load_model()
    (norm,) = [layer for layer in trained.submodules if hasattr(layer, "moving_mean")]
    kept = norm.moving_variance.numpy()
    reestimate_batch_statistics(trained, tiny.source().training(0, 0))
    np.testing.assert_allclose(kept, norm.moving_variance.numpy(), rtol=1e-4)


@pytest.mark.parametrize("steps, expected", [(20, 0.75), (1000, 0.99), (3, 0.0)])
def test_batch_norms_momentum_follows_the_number_of_steps(steps: int, expected: float) -> None:
    model = parse_model_config({**tiny.MODEL, "norm": "batch"}).build(tiny.SPEC)
    follow_number_of_steps(model, steps)
    (norm,) = [layer for layer in model.submodules if hasattr(layer, "momentum")]
    assert norm.momentum == pytest.approx(expected)


def test_a_table_costs_no_pass_over_its_rows() -> None:
    optimizer = RowSparseAdagrad(averaging=RowAveraging(scale=tf.constant(3.0)))
    table = tf.Variable(tf.zeros([50, 2]))
    optimizer.build([table])
    gradient = tf.IndexedSlices(tf.ones([2, 2]), tf.constant([4, 7]), tf.constant([50, 2]))
    graph = tf.function(lambda: optimizer.update_step(gradient, table)).get_concrete_function()
    whole = [
        op.type
        for function in (graph.graph, *graph.graph._functions.values())
        for op in getattr(function, "get_operations", list)()
        if op.type in {"ReadVariableOp", "AssignVariableOp"}
        and any(tuple(t.shape) == (50, 2) for t in [*op.outputs, *op.inputs[1:]])
    ]
    assert whole == []
    optimizer.update_step(gradient, table)
    assert np.flatnonzero(optimizer.offsets[0].numpy()[:, 0]).tolist() == [4, 7]


def test_a_source_without_validation_trains_one_epoch_and_keeps_its_average(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blind = dataclasses.replace(tiny.source(), validation=None)
    train = {"epochs": "auto"}
    result = tiny.tiny_training(tmp_path / "run", train=train, model=MODEL, batches=blind)
    assert (result.epochs, result.global_step) == (1, STEPS)
    assert "no validation rows" in caplog.text


def flipped() -> Any:
    """Validation that gets worse with every step of learning."""
    whole = tiny.source()
    return dataclasses.replace(
        whole, validation=lambda: whole.validation().map(lambda b: {**b, "label": 1 - b["label"]})
    )


def changed_validation(**columns: Any) -> Any:
    whole = tiny.source()
    change = {name: lambda b, f=value, n=name: f(b[n]) for name, value in columns.items()}
    return dataclasses.replace(
        whole,
        validation=lambda: whole.validation().map(
            lambda b: {**b, **{name: of(b) for name, of in change.items()}}
        ),
    )


def test_what_overfits_at_a_tenth_of_the_second_epoch_is_stopped_there(tmp_path: Path) -> None:
    result = tiny.tiny_training(
        tmp_path / "run", train={"epochs": "auto"}, model=MODEL, batches=flipped()
    )
    assert (result.global_step, result.best_step, result.best_epoch) == (STEPS + 2, STEPS, 0)
    once = tmp_path / "once"
    tiny.tiny_training(once, train={"epochs": 1}, model=MODEL, batches=flipped())
    for name, weight in tiny.weights_of(once).items():
        if "step" not in name:
            np.testing.assert_array_equal(weight, tiny.weights_of(tmp_path / "run")[name])


def test_what_goes_on_improving_has_half_a_second_epoch(tmp_path: Path) -> None:
    result = tiny.tiny_training(tmp_path / "run", train={"epochs": "auto"}, model=MODEL)
    assert (result.global_step, result.best_step) == (STEPS * 3 // 2, STEPS * 3 // 2)
    assert result.global_step <= 1.5 * STEPS


@pytest.mark.parametrize(
    "columns, reason",
    [
        ({"weight": tf.zeros_like}, "0 validation clicks with weight"),
        ({"label": tf.zeros_like}, "0 validation clicks with weight"),
        ({"label": tf.ones_like}, "0 validation rows without a click"),
    ],
    ids=["no weight", "no click", "clicks only"],
)
def test_validation_that_cannot_tell_leaves_one_epoch_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, columns: dict[str, Any], reason: str
) -> None:
    source = changed_validation(**columns)
    result = tiny.tiny_training(
        tmp_path / "run", train={"epochs": "auto"}, model=MODEL, batches=source
    )
    assert (result.epochs, result.global_step, result.best_step) == (1, STEPS, STEPS)
    assert reason in caplog.text
    assert "train.evidence_clicks" in caplog.text


def test_too_few_clicks_leave_a_given_number_of_epochs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = {"epochs": 2, "evidence_clicks": 10_000}
    result = tiny.tiny_training(tmp_path / "run", train=train, model=MODEL, batches=flipped())
    assert (result.epochs, result.global_step) == (2, 2 * STEPS)
    assert "fewer than 10000" in caplog.text
