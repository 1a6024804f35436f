"""An export in this process: a TF1 session over a SavedModel, loaded and run as TF Serving does.

The graph is loaded with `tf.compat.v1.saved_model.loader` and run through the session's C++
callables, not through `Session.run`: the latter first compares shapes in Python and words its own
errors, while TF Serving hands what it parsed to the C++ session and passes on what that says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

__all__ = ["ModelSession"]


class ModelSession:
    """A loaded SavedModel; thread-safe.

    Args:
        export_dir: the SavedModel's directory; local or gs://.

    Attributes:
        signatures: the SignatureDefs by name.

    Raises:
        tf.errors.OpError, OSError, ValueError, RuntimeError: the SavedModel does not load.
    """

    def __init__(self, export_dir: str) -> None:
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.loader.load(
                    self._session, [tf.saved_model.SERVING], export_dir
                )
        except BaseException:
            self._session.close()
            raise
        # A plain dict: a proto map raises on a name that is no UTF-8, and callers send such names.
        self.signatures = dict(meta_graph.signature_def)
        self._callables: dict[tuple[tuple[str, ...], tuple[str, ...]], Any] = {}

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Runs the graph; `feeds` and `fetches` by tensor name.

        Raises:
            tf.errors.OpError: what the C++ session said.
            UnicodeDecodeError: the same, quoting bytes of an input that are no text.
        """
        names, unique = tuple(feeds), tuple(sorted(set(fetches)))
        key = (names, unique)
        call = self._callables.get(key)
        if call is None:
            options = config_pb2.CallableOptions(feed=names, fetch=unique)
            call = self._callables[key] = self._session._make_callable_from_options(options)
        values = dict(zip(unique, call(*feeds.values()), strict=True))
        return [values[name] for name in fetches]

    def ask(
        self, signature_name: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """The named outputs of a signature, which must have them and take just these inputs.

        Raises:
            As `run`; KeyError: no such signature, input or output.
        """
        signature = self.signatures[signature_name]
        feeds = {signature.inputs[name].name: values for name, values in inputs.items()}
        arrays = self.run(feeds, [signature.outputs[name].name for name in outputs])
        return dict(zip(outputs, arrays, strict=True))

    def close(self) -> None:
        """Frees the session."""
        self._callables.clear()  # a callable releases itself in its session, which must be open
        self._session.close()
