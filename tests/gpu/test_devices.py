"""Training on GPUs: equal to the CPU's, in every precision, with tables that no GPU could hold.

Each body runs twice: on every GPU (marked gpu, skipped without one) and on logical CPU devices,
so that the bodies themselves are exercised everywhere.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.python_process import answer_of

PROGRAM = Path(__file__).with_name("device_program.py")
NO_DROPOUT = {"dropout": 0.0}
ON_GPU = pytest.param("gpu", marks=pytest.mark.gpu)
ON_CPU = pytest.param("cpu", marks=pytest.mark.slow)


@functools.cache
def num_gpus() -> int:
    """Asked of a process of its own: TensorFlow would take the GPUs into this one."""
    code = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    return int(answer_of(["-c", code], timeout_s=120).split()[-1])


def need(kind: str, gpus: int = 1) -> None:
    if kind == "gpu" and num_gpus() < gpus:
        pytest.skip(f"needs {gpus} GPU{'s' if gpus > 1 else ''}; TensorFlow sees {num_gpus()}")


def run(check: str, *options: str, **values: Any) -> dict[str, Any]:
    # On a GPU, float32 is compared with the CPU's float32.
    environment = {"NVIDIA_TF32_OVERRIDE": "0"} if "gpu" in options else {}
    named = [
        f"--{name}={value if isinstance(value, (str, Path)) else json.dumps(value)}"
        for name, value in values.items()
    ]
    said = answer_of([PROGRAM, check, "--kind", *options, *named], timeout_s=280, **environment)
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer


def weights(path: Path) -> dict[str, np.ndarray]:
    with np.load(path / "weights.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_close(one: Path, other: Path, atol: float) -> None:
    first, second = weights(one), weights(other)
    assert list(first) == list(second)
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=atol, err_msg=name)


@pytest.mark.parametrize("kind", [ON_GPU, ON_CPU])
@pytest.mark.parametrize("tables", ["adagrad", "lazy_adam"])
def test_all_devices_train_as_one_cpu(tmp_path, kind, tables):
    need(kind)
    options = {"train": {"epochs": 1, "embedding_optimizer": tables}, "model": NO_DROPOUT}
    run("train_tiny", "cpu", out=tmp_path / "cpu", count=1, **options)
    many = {"count": 2} if kind == "cpu" else {}
    found = run("train_tiny", kind, out=tmp_path / "all", **many, **options)
    assert found["replicas"] == (2 if kind == "cpu" else num_gpus())
    assert_close(tmp_path / "cpu", tmp_path / "all", 2e-5 if kind == "cpu" else 1e-3)


@pytest.mark.parametrize("kind", [ON_GPU, ON_CPU])
@pytest.mark.parametrize(
    "norm", ["layer", {"kind": "batch", "synchronized": True}], ids=["layer", "synchronized"]
)
def test_two_replicas_train_as_one(tmp_path, kind, norm):
    need(kind, gpus=2)
    # Adam would make steps of the rounding in the gradient of a bias that batch norm takes out again.
    train = {"epochs": 1, "optimizer": "sgd", "learning_rate": 0.1}
    options = {"train": train, "model": {**NO_DROPOUT, "norm": norm}}
    for count in (1, 2):
        found = run("train_tiny", kind, out=tmp_path / str(count), count=count, **options)
        assert found["replicas"] == count
    assert_close(tmp_path / "1", tmp_path / "2", 1e-4 if kind == "cpu" else 1e-3)


@pytest.mark.parametrize("kind", [ON_GPU, ON_CPU])
@pytest.mark.parametrize(
    "option",
    [{"precision": "bfloat16"}, {"precision": "float16"}, {"xla": True}],
    ids=["bfloat16", "float16", "xla"],
)
def test_precision_and_xla_train_and_leave_a_float32_model(tmp_path, kind, option):
    need(kind)
    found = run("train_tiny", kind, out=tmp_path / "run", train=option, model=NO_DROPOUT)
    assert found["auc"] > 0.7
    assert found["dtypes"] == ["float32", "int64"]
    assert found["compute_dtypes"] == ["float32"]
    # Run.load_model is what the export is made of: no cast and no compiled cluster is in it.
    code = (
        "import sys, tensorflow as tf\n"
        "from models.run_directory import RunDirectory\n"
        "from models.zoo.base import example_inputs\n"
        "model = RunDirectory.open(sys.argv[1]).load_model()\n"
        "score = tf.function(lambda x: model(x, training=False))\n"
        "graph = score.get_concrete_function(example_inputs(model.spec, 2)).graph.as_graph_def()\n"
        "nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]\n"
        "assert not any(n.attr['_XlaMustCompile'].b for n in nodes)\n"
        "assert not any('XlaMustCompile' in k for f in graph.library.function for k in f.attr)\n"
        "half = (tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum)\n"
        "assert not any(a.type in half for n in nodes for a in n.attr.values())\n"
    )
    answer_of(["-c", code, tmp_path / "run"], timeout_s=120)


@pytest.mark.gpu
def test_memory_of_a_gpu_grows_as_it_is_needed():
    need("gpu")
    found = run("memory_growth", "gpu")
    assert found["replicas"] == num_gpus()
    assert found["growth"] == [True] * num_gpus()


@pytest.mark.parametrize("kind", [ON_GPU, ON_CPU])
def test_a_table_that_no_device_could_hold_trains_on_the_host(kind):
    need(kind)
    # 2.4 GB beside GPUs of 1 GB; small where there is no limit to break
    rows = 10_000_000 if kind == "gpu" else 10_000
    many = {"count": 2} if kind == "cpu" else {}
    if kind == "gpu":
        assert run("host_table", kind, rows=rows, train={"tables_on": "device"})["exhausted"]
    found = run("host_table", kind, rows=rows, train={"tables_on": "host"}, **many)
    assert not found["exhausted"]
    assert found["table_device"] == "CPU"
    assert found["rows_moved"] == 32
    assert found["last_loss"] < found["first_loss"]
