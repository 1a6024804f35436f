"""Embedding tables that stay in host memory: one copy, whatever the number of replicas.

For tables that exceed a GPU's memory. Replicas gather rows from the one copy; their gradients, rows
only, are applied to it after the replicas' step, because an optimizer inside a step refuses a
variable that the strategy did not make.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import ResourceVariable  # see make_host_table

__all__ = ["host_tables", "make_host_table", "on_host"]

_ON_HOST: contextvars.ContextVar[bool] = contextvars.ContextVar("tables_on_host", default=False)


@contextlib.contextmanager
def host_tables() -> Iterator[None]:
    """Feature embeddings that are built inside keep their tables on the host."""
    token = _ON_HOST.set(True)
    try:
        yield
    finally:
        _ON_HOST.reset(token)


def on_host() -> bool:
    """Whether a table that is built now belongs on the host."""
    return _ON_HOST.get()


def make_host_table(
    name: str,
    shape: Any,
    dtype: Any = tf.float32,
    initializer: Any = None,
    trainable: bool = True,
    **ignored: Any,
) -> tf.Variable:
    """A Keras weight getter: a plain variable on the host, also inside a strategy's scope.

    `tf.Variable` would be mirrored there; the class itself is not intercepted, and no public name
    for it exists.
    """
    del ignored  # aggregation and the like: there is one copy
    with tf.device("CPU:0"):
        return ResourceVariable(
            initial_value=lambda: initializer(shape, dtype=dtype),
            trainable=trainable,
            name=name,
            dtype=dtype,
        )
