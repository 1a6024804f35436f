"""The last look before a version becomes visible: it loads, and it answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import GateError
from pipeline.schema import FeatureSchema
from serving.export.manifest import verify_manifest

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
    """Loads an export once, as TF Serving would, in a process of its own, and asks it.

    It scores two rows in which everything is missing, then replays its warm-up requests (an export
    made before there were any has none).

    Raises:
        GateError: it does not load, does not run, refuses a warm-up request, or answers with
            something else than probabilities.
    """
    from serving.export.warmup_requests import WARMUP_PATH, read_warmup_requests
    from serving.loader.fresh_process import score_in_fresh_process

    manifest = verify_manifest(export_dir)
    missing = ("serving_default", missing_rows(manifest.extra["inputs"], 2))
    try:
        requests = [missing, *read_warmup_requests(export_dir)]
    except Exception as error:  # whatever is wrong with the file, TF Serving would refuse it
        raise GateError(
            "an export's warm-up requests must be readable",
            f"{export_dir / WARMUP_PATH}: {str(error).splitlines()[0][:300]}",
            "Build it again: clickparity parity --run RUN_DIR.",
        ) from error
    answers = score_in_fresh_process(export_dir, requests)
    for (signature, inputs), answer in zip(requests, answers, strict=True):
        probability = answer["probability"]
        fingerprints = {f.decode() for f in answer["model_fingerprint"].tolist()}
        num_rows = len(next(iter(inputs.values())))
        if (
            probability.shape != (num_rows,)
            or not ((probability >= 0) & (probability <= 1)).all()
            or fingerprints != {manifest.fingerprint}
        ):
            raise GateError(
                "an export must answer with a probability a row and its own fingerprint",
                f"{signature}: {probability.tolist()[:5]} for {num_rows} rows, {fingerprints}",
                "Build it again: clickparity parity --run RUN_DIR.",
            )
