"""One engine's training steps, timed in a process of its own, a round at a time.

    python train_steps.py ENGINE --vocab N [--batch-size 512] [--threads 2] [--records DATA_DIR]

Reads lines from stdin; for each "go STEPS" it trains that many steps and prints one JSON line:
milliseconds a step (wall and processor) and peak memory. The driver alternates engines, so that
what else the machine does hits both. "profile STEPS" (TensorFlow's engines only) prints milliseconds a
step by kind of operation.

Engines: clickparity, clickparity-records (from packed shards), floor (the bare matrix products of
the same step), deepctr, torch-adam, torch-sparse-adam, torch-sparse-adagrad.
The step: 26 ids of 16 dims and 13 numerics, 3 full cross layers, MLP 400x3, log loss.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FIELDS, NUMERICS, DIM, CROSSES, UNITS = 26, 13, 16, 3, (400, 400, 400)
WIDTH = NUMERICS + FIELDS * DIM
NUM_BATCHES = 16

Steps = Callable[[int], None]


def make_rows(vocab: int, batch_size: int) -> dict[str, np.ndarray]:
    """Rows of uniform ids: the most distinct rows that a batch can touch."""
    rng = np.random.default_rng(0)
    rows, per_field = NUM_BATCHES * batch_size, vocab // FIELDS
    return {
        "numeric": rng.normal(size=(rows, NUMERICS)).astype(np.float32),
        "ids": rng.integers(0, per_field, (rows, FIELDS)).astype(np.int32),
        "label": (rng.random(rows) < 0.25).astype(np.float32),
    }


def clickparity(vocab: int, batch_size: int, threads: int, records: str | None) -> Steps:
    """Ours, with the config's defaults."""
    tf = _tensorflow(threads)
    from models.config.model import parse_model_config
    from models.config.train import parse_train_config
    from models.losses import ClickLoss
    from models.optimizers import make_optimizer
    from models.training.step import TrainSteps
    from models.training.strategy import make_strategy
    from models.zoo import build_model
    from pipeline.records.data_directory import DataDirectory
    from pipeline.records.dataset import training_batches
    from pipeline.records.encoded import EncodedSpec, IdFeature

    if records is None:
        fields = tuple(IdFeature(f"c{i}", vocab // FIELDS) for i in range(FIELDS))
        spec = EncodedSpec(tuple(f"i{i}" for i in range(NUMERICS)), fields)
        rows = make_rows(vocab, batch_size)
        rows["weight"] = np.ones_like(rows["label"])
        batches = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size).cache().repeat()
        batches = batches.prefetch(4)
    else:
        data = DataDirectory.open(records)
        spec = data.spec
        epochs = [
            training_batches(data, batch_size=batch_size, seed=0, epoch=epoch)
            for epoch in range(50)
        ]
        batches = epochs[0]
        for epoch in epochs[1:]:
            batches = batches.concatenate(epoch)
    config = parse_train_config({"global_batch_size": batch_size})
    model_config = parse_model_config(
        {
            "name": "dcn_v2",
            "norm": "none",
            "embedding_dim": DIM,
            "hidden_units": list(UNITS),
            "cross": {"num_layers": CROSSES},
        }
    )
    strategy = make_strategy(["CPU:0"])
    with strategy.scope():
        model = build_model(model_config, spec)
    optimizer = make_optimizer(config, 1000, model, strategy)
    train_steps = TrainSteps(model, optimizer, ClickLoss(config.loss), strategy)
    iterator = iter(strategy.experimental_distribute_dataset(batches))

    def run(steps: int) -> None:
        train_steps(iterator, tf.constant(steps))[0].numpy()

    return run


def floor(vocab: int, batch_size: int, threads: int, records: str | None) -> Steps:
    """The matrix products of forward and backward pass, and nothing else."""
    tf = _tensorflow(threads)
    del vocab, records
    x = tf.random.normal([batch_size, WIDTH])
    crosses = [tf.random.normal([WIDTH, WIDTH]) / WIDTH for _ in range(CROSSES)]
    widths = (WIDTH, *UNITS)
    layers = [tf.random.normal(pair) / WIDTH for pair in itertools.pairwise(widths)]

    @tf.function
    def products(steps: Any) -> Any:
        total = tf.constant(0.0)
        for _ in tf.range(steps):
            for weights in (crosses, layers):
                hidden = x + total * 0.0  # so that no step can be hoisted out of the loop
                for weight in weights:
                    out = tf.matmul(hidden, weight)
                    to_inputs = tf.matmul(out, weight, transpose_b=True)
                    to_weight = tf.matmul(hidden, out, transpose_a=True)
                    total += to_inputs[0, 0] + to_weight[0, 0]
                    hidden = out
        return total

    return lambda steps: products(tf.constant(steps)).numpy()


def deepctr(vocab: int, batch_size: int, threads: int, records: str | None) -> Steps:
    """DeepCTR's DCN with its default losses, regularization and Adam."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    tf = _tensorflow(threads)
    del records
    from deepctr.feature_column import DenseFeat, SparseFeat
    from deepctr.models import DCN

    fields = [SparseFeat(f"c{i}", vocab // FIELDS, embedding_dim=DIM) for i in range(FIELDS)]
    columns = [*fields, *(DenseFeat(f"i{i}", 1) for i in range(NUMERICS))]
    model = DCN(
        columns,
        columns,
        cross_num=CROSSES,
        cross_parameterization="matrix",
        dnn_hidden_units=UNITS,
    )
    model.compile("adam", "binary_crossentropy", steps_per_execution=16)
    rows = make_rows(vocab, batch_size)
    inputs = {f"c{i}": rows["ids"][:, i] for i in range(FIELDS)}
    inputs |= {f"i{i}": rows["numeric"][:, i] for i in range(NUMERICS)}
    batches = tf.data.Dataset.from_tensor_slices((inputs, rows["label"])).batch(batch_size)
    batches = batches.cache().repeat().prefetch(4)
    return lambda steps: model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0)


def torch_engine(optimizer: str) -> Callable[[int, int, int, str | None], Steps]:
    """A plain PyTorch DCN-v2 with one fused table."""

    def make(vocab: int, batch_size: int, threads: int, records: str | None) -> Steps:
        import torch
        from torch import nn

        del records
        torch.set_num_threads(threads)
        per_field, sparse = vocab // FIELDS, optimizer != "adam"

        class Dcn(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                if sparse:
                    self.table = nn.EmbeddingBag(vocab, DIM, mode="sum", sparse=True)
                else:
                    self.table = nn.Embedding(vocab, DIM)
                self.register_buffer("offsets", torch.arange(FIELDS) * per_field)
                self.crosses = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(CROSSES))
                widths = (WIDTH, *UNITS)
                layers: list[nn.Module] = []
                for before, after in itertools.pairwise(widths):
                    layers += [nn.Linear(before, after), nn.ReLU()]
                self.mlp = nn.Sequential(*layers)
                self.head = nn.Linear(WIDTH + UNITS[-1], 1)

            def forward(self, numeric: Any, ids: Any) -> Any:
                rows = ids + self.offsets
                if sparse:
                    embedded = self.table(rows.reshape(-1, 1)).reshape(len(ids), -1)
                else:
                    embedded = self.table(rows).flatten(1)
                x0 = torch.cat([numeric, embedded], dim=1)
                x = x0
                for cross in self.crosses:
                    x = x0 * cross(x) + x
                return self.head(torch.cat([x, self.mlp(x0)], dim=1)).squeeze(1)

        model = Dcn()
        dense = [p for name, p in model.named_parameters() if not name.startswith("table")]
        if not sparse:
            optimizers = [torch.optim.Adam(model.parameters())]
        elif optimizer == "sparse-adam":
            optimizers = [
                torch.optim.Adam(dense),
                torch.optim.SparseAdam(list(model.table.parameters())),
            ]
        else:
            optimizers = [
                torch.optim.Adam(dense),
                torch.optim.Adagrad(model.table.parameters(), lr=0.02),
            ]
        rows = make_rows(vocab, batch_size)
        tensors = [torch.from_numpy(rows[key]) for key in ("numeric", "ids", "label")]
        tensors[1] = tensors[1].long()
        batches = list(zip(*(tensor.split(batch_size) for tensor in tensors), strict=True))
        position = 0

        def run(steps: int) -> None:
            nonlocal position
            for _ in range(steps):
                numeric, ids, label = batches[position % len(batches)]
                position += 1
                loss = nn.functional.binary_cross_entropy_with_logits(model(numeric, ids), label)
                for each in optimizers:
                    each.zero_grad(set_to_none=True)
                loss.backward()
                for each in optimizers:
                    each.step()

        return run

    return make


def profile(run: Steps, steps: int, most: int = 12) -> list[dict[str, float | str]]:
    """Milliseconds and calls a step by kind of operation, over all threads, the longest first."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as directory:
        with tf.profiler.experimental.Profile(directory):
            run(steps)
        (file,) = Path(directory).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    times: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            # "node/name:Op" is an operation; what encloses operations is named otherwise
            named = re.fullmatch(r"[^:]+:(\w+)", plane.event_metadata[event.metadata_id].name)
            if named:
                times[named[1]] += event.duration_ps
                calls[named[1]] += 1
    return [
        {"operation": name, "ms": picos / steps / 1e9, "calls": calls[name] / steps}
        for name, picos in times.most_common(most)
    ]


def _tensorflow(threads: int) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return tf


ENGINES: dict[str, Callable[[int, int, int, str | None], Steps]] = {
    "clickparity": clickparity,
    "clickparity-records": clickparity,
    "floor": floor,
    "deepctr": deepctr,
    "torch-adam": torch_engine("adam"),
    "torch-sparse-adam": torch_engine("sparse-adam"),
    "torch-sparse-adagrad": torch_engine("sparse-adagrad"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--vocab", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--records")
    args = parser.parse_args(argv)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    run = ENGINES[args.engine](args.vocab, args.batch_size, args.threads, args.records)
    run(16)  # compiles, and touches every slot once
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        command, count = line.split()
        steps = int(count)
        if command == "profile":
            print(json.dumps(profile(run, steps)), file=answers, flush=True)
            continue
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        run(steps)
        answer = {
            "wall_ms": (time.perf_counter() - wall_s) / steps * 1e3,
            "cpu_ms": (time.process_time() - cpu_s) / steps * 1e3,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
