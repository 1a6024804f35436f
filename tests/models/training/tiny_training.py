"""A training of seconds over rows in memory, for the tests of the trainer.

Run as a program it is a training process to be killed:
    python tiny_training.py RUN_DIR [--replicas N] [--pause-at STEP] [--train JSON] [--model JSON]
With --pause-at it writes RUN_DIR/paused after that many steps and waits there for a signal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from models.config.model import parse_model_config
from models.config.train import parse_train_config
from models.run_directory import RunDirectory
from models.training.trainer import BatchSource, TrainResult, train_on
from pipeline.errors import Interrupted
from pipeline.records.encoded import EncodedSpec, IdFeature, SequenceFeature

ROWS, BATCH = 1000, 50  # 20 steps an epoch
SPEC = EncodedSpec(
    ("x",), (IdFeature("ad", 20), IdFeature("site", 7)), (SequenceFeature("seen", 20, 3, "ad"),)
)
MODEL = {
    "name": "dcn_v2",
    "norm": "layer",
    "embedding_dim": 4,
    "hidden_units": [8],
    "cross": {"num_layers": 1},
    "dropout": 0.2,
}
TRAIN = {"global_batch_size": BATCH, "epochs": 2, "steps_per_execution": 4, "learning_rate": 0.01}


def rows() -> dict[str, np.ndarray]:
    """Rows whose click depends on x and on the ad."""
    rng = np.random.default_rng(0)
    x, ad = rng.normal(size=ROWS), rng.integers(0, 20, ROWS)
    click = rng.random(ROWS) < 1 / (1 + np.exp(-(x + 2.0 * (ad % 3) - 2.0)))
    return {
        "numeric": x[:, None].astype(np.float32),
        "ids": np.stack([ad, rng.integers(0, 7, ROWS)], axis=1).astype(np.int32),
        "sequence/seen": rng.integers(0, 20, (ROWS, 3)).astype(np.int32),
        "label": click.astype(np.float32),
        "weight": np.ones(ROWS, np.float32),
        "carry": np.zeros((ROWS, 0), np.float32),
    }


def source(pause_at: int | None = None, marker: Path | None = None) -> BatchSource:
    """Shuffled by epoch; optionally waits before giving out a step's batch."""
    data = rows()
    steps = ROWS // BATCH

    def training(epoch: int, first_step: int) -> tf.data.Dataset:
        order = np.random.default_rng([7, epoch]).permutation(ROWS)
        batches = tf.data.Dataset.from_tensor_slices({k: v[order] for k, v in data.items()})
        batches = batches.batch(BATCH, drop_remainder=True).skip(first_step)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        if pause_at is not None and marker is not None:
            wait_before = pause_at - epoch * steps - first_step

            def wait(index: np.ndarray) -> np.ndarray:
                if index == wait_before:
                    marker.write_text("")
                    time.sleep(3.0)
                return index

            def waiting(index: tf.Tensor, batch: dict) -> dict:
                seen = tf.numpy_function(wait, [index], tf.int64)
                with tf.control_dependencies([seen]):
                    return {name: tf.identity(value) for name, value in batch.items()}

            spec = batches.element_spec
            batches = batches.enumerate().map(waiting)
            batches = batches.map(
                lambda b: {n: tf.ensure_shape(v, spec[n].shape) for n, v in b.items()}
            )
        return batches.with_options(options)

    return BatchSource(
        spec=SPEC,
        steps_per_epoch=steps,
        label_rate=float(data["label"].mean()),
        training=training,
        validation=lambda: tf.data.Dataset.from_tensor_slices(data).batch(300),
    )


def run_directory(path: Path, model: dict, train: dict) -> RunDirectory:
    """A run directory for this training."""
    config = {"model": {**MODEL, **model}, "train": {**TRAIN, **train}}
    return RunDirectory.create(path, config, "tiny", "memory")


def tiny_training(
    path: Path,
    *,
    model: dict | None = None,
    train: dict | None = None,
    devices: list[str] | None = None,
    batches: BatchSource | None = None,
    progress: bool = False,
) -> TrainResult:
    """Trains in `path`."""
    run = run_directory(path, model or {}, train or {})
    model_config = parse_model_config(run.config["model"])
    train_config = parse_train_config(run.config["train"])
    return train_on(
        batches or source(), model_config, train_config, run, devices=devices, progress=progress
    )


def weights_of(path: Path) -> dict[str, np.ndarray]:
    """The final weights by name."""
    with np.load(path / "weights.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--pause-at", type=int)
    parser.add_argument("--train", type=json.loads, default={})
    parser.add_argument("--model", type=json.loads, default={})
    args = parser.parse_args(argv)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * args.replicas
    )
    args.run.mkdir(parents=True, exist_ok=True)
    try:
        tiny_training(
            args.run,
            model=args.model,
            train=args.train,
            devices=[f"CPU:{i}" for i in range(args.replicas)],
            batches=source(args.pause_at, args.run / "paused"),
        )
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
