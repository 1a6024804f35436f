"""Runs `session_process` and brings its answers back."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import GateError
from serving.loader.child_process import why_failed

__all__ = ["Request", "score_in_fresh_process"]

Request = tuple[str, Mapping[str, np.ndarray]]
_TIMEOUT_S = 300


def score_in_fresh_process(
    export_dir: Path, requests: Sequence[Request]
) -> list[dict[str, np.ndarray]]:
    """Answers of an export to (signature, inputs) requests, from `tf.compat.v1`'s loader and a session.

    Raises:
        GateError: the export does not load or does not run there.
    """
    script = Path(__file__).with_name("session_process.py")
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "requests.pickle", Path(scratch) / "answers.pickle"
        asked.write_bytes(pickle.dumps([(name, dict(inputs)) for name, inputs in requests]))
        # -I: neither this project nor the caller's environment can be imported there.
        reason = why_failed(
            ["-I", str(script), str(export_dir), str(asked), str(answered)], timeout_s=_TIMEOUT_S
        )
        if reason is not None:
            raise GateError(
                "the export must load and run in a process without this project's Python",
                reason,
                f"Load {export_dir} with tf.compat.v1.saved_model.loader to see all of it.",
            )
        answers: list[dict[str, np.ndarray]] = pickle.loads(answered.read_bytes())
        return answers
