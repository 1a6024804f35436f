"""Training keeps the memory of freed tensors: hardly a page fault a step once it is warm."""

from __future__ import annotations

import platform

import pytest

from tests.python_process import answer_of

# Activations of 400 KB: above the threshold that TensorFlow sets, and below the one that we set.
STEPS = """
import resource
import numpy as np, tensorflow as tf
from models.config.model import parse_model_config
from models.losses import ClickLoss
from models.optimizers import make_optimizer
from models.config.train import parse_train_config
from models.training.step import TrainSteps
from models.training.strategy import make_strategy
from models.zoo import build_model
from pipeline.records.encoded import EncodedSpec, IdFeature

spec = EncodedSpec(("n",), (IdFeature("a", 100),))
config = parse_train_config({"global_batch_size": 512})
sizes = {"embedding_dim": 8, "hidden_units": [200, 200], "norm": "none"}
strategy = make_strategy(["CPU:0"])
with strategy.scope():
    model = build_model(parse_model_config({"name": "wide_deep", **sizes}), spec)
optimizer = make_optimizer(config, 100, model, strategy)
steps = TrainSteps(model, optimizer, ClickLoss(config.loss), strategy)
rows = {"numeric": np.ones((512, 1), np.float32), "ids": np.ones((512, 1), np.int32),
        "label": np.ones(512, np.float32), "weight": np.ones(512, np.float32)}
batches = tf.data.Dataset.from_tensor_slices(rows).batch(512).repeat()
iterator = iter(strategy.experimental_distribute_dataset(batches))
steps(iterator, tf.constant(30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps(iterator, tf.constant(30))
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 30)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator")
def test_a_warm_step_takes_hardly_a_new_page() -> None:
    assert float(answer_of(["-c", STEPS], timeout_s=200)) < 200
