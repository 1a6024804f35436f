"""Options of the trainer: precision, XLA, clipping, batch statistics, the one-epoch warning."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models.config.model import parse_model_config
from models.config.train import parse_train_config
from models.losses import ClickLoss
from models.optimizers import make_optimizer
from models.run_directory import RunDirectory
from models.training.batch_statistics import reestimate_batch_statistics
from models.training.step import TrainSteps
from models.training.strategy import make_strategy
from models.zoo import build_model

SCRIPT = Path(__file__).with_name("tiny_training.py")
_spec = importlib.util.spec_from_file_location("tiny_training_options", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)


@pytest.mark.parametrize("embedding_optimizer", ["adagrad", "lazy_adam", "rowwise_adagrad", "ftrl"])
def test_a_step_never_reads_a_whole_table(embedding_optimizer):
    train = {"embedding_optimizer": embedding_optimizer, "embedding_l2": 1e-3, "cowclip": True}
    config = parse_train_config({**tiny.TRAIN, **train})
    source = tiny.source()
    strategy = make_strategy(["CPU:0"])
    with strategy.scope():
        model = build_model(parse_model_config(tiny.MODEL), source.spec)
    optimizer = make_optimizer(config, source.steps_per_epoch, model, strategy)
    steps = TrainSteps(model, optimizer, ClickLoss(config.loss), strategy)
    iterator = iter(strategy.experimental_distribute_dataset(source.training(0, 0)))
    concrete = tf.function(steps).get_concrete_function(iterator, tf.constant(2))
    graph = concrete.graph.as_graph_def(add_shapes=True)
    rows = model.sparse_variables[0].shape[0]
    tables, gathers = [], 0
    for function in graph.library.function:
        for node in function.node_def:
            gathers += node.op == "ResourceGather"
            if node.op == "ReadVariableOp":
                shape = node.attr["_output_shapes"].list.shape[0].dim
                tables += [node.name for size in shape[:1] if size.size == rows]
    assert gathers
    assert tables == []


@pytest.mark.parametrize("option", [{"precision": "bfloat16"}, {"precision": "float16"}])
@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.slow
def test_mixed_precision_learns_and_leaves_a_float32_model(tmp_path, option, norm):
    tiny.tiny_training(tmp_path / "run", train=option, model={"norm": norm})
    run = RunDirectory.open(tmp_path / "run")
    assert run.read_history()[-1]["validation"]["auc"] > 0.7
    model = run.load_model()
    assert {weight.dtype for weight in model.weights} == {tf.float32, tf.int64}
    assert all(layer.compute_dtype == "float32" for layer in model.layers)


@pytest.mark.slow
def test_xla_trains_the_same_model_to_rounding(tmp_path):
    model = {"dropout": 0.0}
    tiny.tiny_training(tmp_path / "plain", model=model)
    tiny.tiny_training(tmp_path / "xla", model=model, train={"xla": True})
    plain, xla = tiny.weights_of(tmp_path / "plain"), tiny.weights_of(tmp_path / "xla")
    for name in plain:
        np.testing.assert_allclose(plain[name], xla[name], atol=2e-3, err_msg=name)


def test_a_loss_that_overflows_float16_skips_the_step_and_halves_the_scale():
    from models.keras2 import keras
    from models.optimizers import CompositeOptimizer, RowSparseAdagrad

    weight = tf.Variable([1.0])
    optimizer = CompositeOptimizer(
        keras.optimizers.SGD(0.5), RowSparseAdagrad(0.1), loss_scaling=True
    )
    optimizer.build([weight], [])
    scale = float(optimizer.scale_of_loss())
    reduced = optimizer.reduce_gradients([tf.constant([2.0 * scale])])
    assert float(reduced[0][0]) == 2.0
    for gradient, after in ((1.0, 1.0), (np.inf, 0.5), (np.nan, 0.25)):
        optimizer.adapt_scale(optimizer.all_finite([tf.constant([gradient])]))
        assert float(optimizer.scale_of_loss()) == scale * after


def test_reestimated_statistics_are_those_of_the_population():
    model = build_model(
        parse_model_config({**tiny.MODEL, "norm": "batch", "dropout": 0.5}), tiny.SPEC
    )
    batches = list(tiny.source().training(0, 0))
    (norm,) = [layer for layer in model.submodules if hasattr(layer, "moving_mean")]
    momentum = norm.momentum
    seen = []
    call = norm.call

    def spy(inputs, *args, **kwargs):
        seen.append(inputs)
        return call(inputs, *args, **kwargs)

    # What enters the first norm depends on no other batch statistic: its population is the data.
    inputs = {k: tf.constant(v) for k, v in tiny.rows().items() if k not in ("label", "weight")}
    norm.call = spy
    model(inputs, training=False)
    norm.call = call
    population = np.concatenate([np.asarray(x) for x in seen])
    assert reestimate_batch_statistics(model, batches) == len(batches)
    np.testing.assert_allclose(norm.moving_mean, population.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, population.var(axis=0), rtol=1e-4, atol=1e-6)
    assert norm.momentum == momentum


def test_reestimation_leaves_a_model_without_batch_norm_alone():
    model = build_model(parse_model_config(tiny.MODEL), tiny.SPEC)
    assert reestimate_batch_statistics(model, tiny.source().training(0, 0)) == 0


def replicas(path: Path, count: int, **options) -> dict[str, np.ndarray]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[3]), *sys.path])}
    arguments = [f"--{name}={json.dumps(value)}" for name, value in options.items()]
    command = [sys.executable, str(SCRIPT), str(path), f"--replicas={count}", *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return tiny.weights_of(path)


@pytest.mark.slow
@pytest.mark.parametrize("embedding_optimizer", ["adagrad", "lazy_adam"])
def test_tables_on_the_host_train_as_those_on_the_devices(tmp_path, embedding_optimizer):
    train = {"epochs": 1, "embedding_optimizer": embedding_optimizer, "embedding_l2": 1e-3}
    model = {"dropout": 0.0}
    device = replicas(tmp_path / "device", 1, train=train, model=model)
    for count in (1, 2):
        host = replicas(
            tmp_path / f"host{count}", count, train={**train, "tables_on": "host"}, model=model
        )
        for name in device:
            np.testing.assert_allclose(device[name], host[name], atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    "embedding_optimizer, cowclip",
    [("adagrad", False), ("rowwise_adagrad", False), ("ftrl", False), ("lazy_adam", True)],
)
def test_l2_clip_and_accumulator_hold_alike_for_a_loss_of_half_the_size(
    tmp_path, embedding_optimizer, cowclip
):
    """Focal with alpha 1/2 and gamma 0 is half of cross-entropy. Only the tables move here: Adam's
    epsilon is in units of the loss, and would let two trainings of the rest drift apart."""
    train = {"epochs": 1, "embedding_optimizer": embedding_optimizer, "embedding_l2": 0.02}
    train |= {"learning_rate": 1e-12}
    train |= {"cowclip": {"ratio": 0.02}} if cowclip else {"embedding_initial_accumulator": 1e-3}
    half = {**train, "loss": {"kind": "focal", "alpha": 0.5, "gamma": 0.0}}
    tiny.tiny_training(tmp_path / "whole", train=train)
    tiny.tiny_training(tmp_path / "half", train=half)
    whole, halved = tiny.weights_of(tmp_path / "whole"), tiny.weights_of(tmp_path / "half")
    for name in whole:
        np.testing.assert_allclose(whole[name], halved[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("embedding_optimizer", ["adagrad", "lazy_adam"])
def test_two_replicas_train_as_one(tmp_path, embedding_optimizer):
    options = {
        "train": {"epochs": 1, "embedding_optimizer": embedding_optimizer},
        "model": {"dropout": 0.0},
    }
    one = replicas(tmp_path / "one", 1, **options)
    two = replicas(tmp_path / "two", 2, **options)
    again = replicas(tmp_path / "again", 2, **options)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=2e-5, err_msg=name)
        np.testing.assert_array_equal(two[name], again[name], err_msg=name)


@pytest.mark.parametrize("epochs, warned", [(2, True), (1, False)])
def test_a_log_loss_that_jumps_early_in_epoch_2_is_warned_about(tmp_path, capsys, epochs, warned):
    train = {"epochs": epochs, "one_epoch_tolerance": 0.0}
    whole = tiny.source()
    flipped = dataclasses.replace(
        whole, validation=lambda: whole.validation().map(lambda b: {**b, "label": 1 - b["label"]})
    )
    tiny.tiny_training(tmp_path / "run", train=train, batches=flipped, progress=True)
    said = capsys.readouterr().err
    assert ("validation log loss jumped" in said) is warned
    history = RunDirectory.open(tmp_path / "run").read_history()
    assert ["early_validation" in record for record in history] == [False, True][:epochs]


def test_moving_statistics_are_reestimated_before_the_evaluation(tmp_path):
    model = {"norm": "batch", "dropout": 0.0}
    train = {"epochs": 1, "reestimate_batch_statistics": True}
    tiny.tiny_training(tmp_path / "run", train=train, model=model)
    run = RunDirectory.open(tmp_path / "run")
    trained = run.load_model()
    (norm,) = [layer for layer in trained.submodules if hasattr(layer, "moving_mean")]
    kept = norm.moving_variance.numpy()
    reestimate_batch_statistics(trained, tiny.source().training(0, 0))
    np.testing.assert_allclose(kept, norm.moving_variance.numpy(), rtol=1e-4)
