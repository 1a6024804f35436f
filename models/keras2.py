"""The one door to Keras: this project is tf_keras (Keras 2), and this module sets and asserts it.

TensorFlow Recommenders refuses Keras 3, and `tf.keras` is whichever Keras was chosen when it was
first touched. Everybody else writes ``from models.keras2 import keras``.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
if os.environ["TF_USE_LEGACY_KERAS"] not in ("1", "true", "True"):
    raise ImportError(
        "TF_USE_LEGACY_KERAS must be 1 for this project; got "
        f"{os.environ['TF_USE_LEGACY_KERAS']!r}. Unset it, or set it to 1, before Python starts."
    )

import tensorflow as tf
import tf_keras as keras

if tf.keras.layers.Dense is not keras.layers.Dense:
    raise ImportError(
        f"tf.keras must be Keras 2 (tf_keras); got {tf.keras.layers.Dense.__module__}. "
        "Something touched tf.keras before models.keras2 was imported: import this module first."
    )

__all__ = ["keras"]
