"""What a training sets in its process: reproducible kernels, float32 products, precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from models.config.train import TrainConfig
from models.keras2 import keras

__all__ = ["layer_precision", "set_process_options"]


def set_process_options(config: TrainConfig) -> None:
    """Sets determinism and TF32 for the rest of the process, as the config says."""
    if config.deterministic:
        keras.utils.set_random_seed(config.seed)  # determinism refuses unseeded random ops
        tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(config.matmul == "default")


@contextlib.contextmanager
def layer_precision(precision: str) -> Iterator[None]:
    """The Keras policy for layers that are made inside; the process keeps its own."""
    before = keras.mixed_precision.global_policy()
    name = "float32" if precision == "float32" else f"mixed_{precision}"
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)
