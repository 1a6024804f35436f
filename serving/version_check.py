"""The last look before a version becomes visible: it loads, and it answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import GateError
from pipeline.schema import FeatureSchema
from serving.manifest import verify_manifest

__all__ = ["loads_and_answers", "missing_rows"]


def missing_rows(inputs: dict[str, list[str]], num_rows: int) -> dict[str, np.ndarray]:
    """A `serving_default` request in which every value is missing.

    Args:
        inputs: raw columns by kind, as an export's manifest lists them.
        num_rows: batch size.
    """
    request = {
        FeatureSchema.input_name(c): np.full(num_rows, np.nan, np.float32)
        for c in inputs["numbers"]
    }
    for column in (*inputs["texts"], *inputs["images"]):
        request[FeatureSchema.input_name(column)] = np.full(num_rows, b"", object)
    return request


def loads_and_answers(export_dir: Path) -> None:
    """Loads an export once, as TF Serving would, in a process of its own, and scores two rows.

    Raises:
        GateError: it does not load, does not run, or answers with something else than probabilities.
    """
    from serving.parity.fresh_process import score_in_fresh_process

    manifest = verify_manifest(export_dir)
    request = missing_rows(manifest.extra["inputs"], 2)
    (answer,) = score_in_fresh_process(export_dir, [("serving_default", request)])
    probability = answer["probability"]
    fingerprint = answer["model_fingerprint"][0].decode()
    if not (np.isfinite(probability).all() and fingerprint == manifest.fingerprint):
        raise GateError(
            "an export must answer with finite probabilities and its own fingerprint",
            f"{probability.tolist()}, {fingerprint}",
            "Build it again: clickparity parity --run RUN_DIR.",
        )
