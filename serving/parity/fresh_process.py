"""Runs `session_process` and brings its answers back."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import GateError

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
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "requests.pickle", Path(scratch) / "answers.pickle"
        asked.write_bytes(pickle.dumps([(name, dict(inputs)) for name, inputs in requests]))
        done = subprocess.run(
            [sys.executable, "-I", str(script), str(export_dir), str(asked), str(answered)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise GateError(
                "the export must load and run in a process without this project's Python",
                lines[-1][:500] if lines else f"exit {done.returncode}",
                f"Load {export_dir} with tf.compat.v1.saved_model.loader to see all of it.",
            )
        answers: list[dict[str, np.ndarray]] = pickle.loads(answered.read_bytes())
        return answers
