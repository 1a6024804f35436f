"""The server check: the same rows over gRPC and REST."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.transform.raw_rows import RawRows
from serving.client.client import PredictClient
from serving.export.signatures import ServingModule
from serving.parity.checks import LOGIT_BAR, Check
from serving.parity.logits import largest_difference, logit_function
from serving.server.local_server import LocalServer

__all__ = ["server_equality"]

_ROWS = 64


def server_equality(
    module: ServingModule, export_dir: Path, real: RawRows, beam_encoded: Mapping[str, np.ndarray]
) -> Check:
    """Keras in memory against a server that loaded the export: gRPC and REST, rows and batches."""
    few = real.take(slice(0, _ROWS))
    encoded = {key: values[:_ROWS] for key, values in beam_encoded.items()}
    raw = logit_function(module.model, training=False)(encoded)
    expected = np.asarray(module.calibration.logits(tf.constant(raw)))
    gaps: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as models_dir:
        (Path(models_dir) / "parity").mkdir()
        os.symlink(export_dir.resolve(), Path(models_dir) / "parity" / "1")
        with LocalServer(models_dir, grpc_port=0, rest_port=0) as server:
            clients = {
                "grpc": PredictClient(server.grpc_address, "parity", protocol="grpc"),
                "rest": PredictClient(server.rest_address, "parity", protocol="rest"),
            }
            for protocol, client in clients.items():
                with client:
                    answers = [client.predict(few.by_name())["logit"]]
                    alone = [client.predict(few.take(slice(i, i + 1)).by_name()) for i in range(8)]
                    answers.append(np.concatenate([a["logit"] for a in alone]))
                gaps[protocol] = max(largest_difference(a, expected[: len(a)]) for a in answers)
    return Check(
        "server",
        f"the same {len(few)} rows over gRPC and REST, together and alone",
        max(gaps.values()),
        LOGIT_BAR,
        {"by_protocol": gaps},
    )
