"""One check of training on devices, in a process of its own: devices can be configured only once.

    python device_program.py CHECK --kind gpu|cpu [--count N] [--out DIR] [--train JSON] [--model JSON]

`--kind cpu` runs the same body on N logical CPU devices, so that it is exercised where there is no
GPU. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from models.config.model import parse_model_config
from models.config.train import parse_train_config
from models.layers.host_tables import host_tables
from models.losses import ClickLoss
from models.optimizers import make_optimizer
from models.run_directory import RunDirectory
from models.training.step import TrainSteps
from models.training.strategy import make_strategy
from models.zoo import build_model
from pipeline.records.encoded import EncodedSpec, IdFeature

_path = Path(__file__).resolve().parents[1] / "models" / "training" / "tiny_training.py"
_spec = importlib.util.spec_from_file_location("tiny_training", _path)
assert _spec is not None
assert _spec.loader is not None
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

MEMORY_LIMIT_MB, DIM = 1024, 64
MODEL = {"name": "dcn_v2", "norm": "layer", "embedding_dim": DIM, "hidden_units": [8]}


def train_tiny(args: argparse.Namespace) -> dict[str, Any]:
    """The tiny training on every device, weights in args.out."""
    devices = _devices(args)
    args.out.mkdir(parents=True, exist_ok=True)
    tiny.tiny_training(args.out, train=args.train, model=args.model, devices=devices)
    run = RunDirectory.open(args.out)
    model = run.load_model()
    return {
        "replicas": args.count if devices else len(tf.config.list_logical_devices("GPU")),
        "auc": run.read_history()[-1]["validation"]["auc"],
        "dtypes": sorted({weight.dtype.name for weight in model.weights}),
        "compute_dtypes": sorted({layer.compute_dtype for layer in model.layers}),
    }


def memory_growth(args: argparse.Namespace) -> dict[str, Any]:
    """What `make_strategy` leaves of each GPU's settings."""
    strategy = make_strategy(_devices(args))
    gpus = tf.config.list_physical_devices("GPU")
    with strategy.scope():
        tf.Variable(tf.zeros([1000]))
    return {
        "replicas": strategy.num_replicas_in_sync,
        "growth": [tf.config.experimental.get_memory_growth(gpu) for gpu in gpus],
    }


def host_table(args: argparse.Namespace) -> dict[str, Any]:
    """One step with a table of args.rows rows beside devices of MEMORY_LIMIT_MB, on the host or not."""
    if args.kind == "gpu":
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=MEMORY_LIMIT_MB)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.set_logical_device_configuration(gpu, [limit])
    strategy = make_strategy(_devices(args))
    config = parse_train_config({"global_batch_size": 32, **args.train})
    spec = EncodedSpec(("x",), (IdFeature("ad", args.rows),))
    tables = host_tables if config.tables_on == "host" else strategy.scope
    try:
        with strategy.scope(), tables():
            model = build_model(parse_model_config(MODEL), spec)
        optimizer = make_optimizer(config, 10, model, strategy)
    except tf.errors.ResourceExhaustedError:
        return {"exhausted": True}
    rng = np.random.default_rng(0)
    ids = rng.integers(1, args.rows, (32, 1)).astype(np.int32)
    batch = {
        "numeric": np.ones((32, 1), np.float32),
        "ids": ids,
        "label": (np.arange(32) % 2).astype(np.float32),
        "weight": np.ones(32, np.float32),
    }
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    iterator = iter(strategy.experimental_distribute_dataset(batches.with_options(options)))
    steps = TrainSteps(model, optimizer, ClickLoss(config.loss), strategy)
    (table,) = model.sparse_variables
    before = tf.gather(table, ids[:, 0]).numpy()
    first = float(steps(iterator, tf.constant(1))[0])
    moved = np.abs(tf.gather(table, ids[:, 0]).numpy() - before).max(axis=1)
    for _ in range(20):
        last = float(steps(iterator, tf.constant(1))[0])
    return {
        "exhausted": False,
        "table_device": tf.DeviceSpec.from_string(table.device).device_type,
        "table_mb": args.rows * DIM * 4 / 2**20,
        "replicas": strategy.num_replicas_in_sync,
        "rows_moved": int((moved > 0).sum()),
        "first_loss": first,
        "last_loss": last,
    }


def _devices(args: argparse.Namespace) -> list[str] | None:
    """None (all GPUs) or logical CPUs."""
    if args.kind == "gpu":
        return None if args.count is None else [f"GPU:{i}" for i in range(args.count)]
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * (args.count or 1)
    )
    return [f"CPU:{i}" for i in range(args.count or 1)]


CHECKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "train_tiny": train_tiny,
    "memory_growth": memory_growth,
    "host_table": host_table,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--kind", choices=("gpu", "cpu"), required=True)
    parser.add_argument("--count", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--train", type=json.loads, default={})
    parser.add_argument("--model", type=json.loads, default={})
    args = parser.parse_args(argv)
    print(json.dumps(CHECKS[args.check](args)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
