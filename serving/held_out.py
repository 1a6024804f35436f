"""What an export's own bytes predict for held-out rows: nothing that is kept beside them is believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.evaluation import Metrics
from models.metrics import evaluate
from pipeline.errors import GateError
from pipeline.records.data_directory import DataDirectory
from pipeline.transform.parity_sample import real_rows
from pipeline.transform.raw_rows import RawRows
from serving.export.agreement import disagreements
from serving.export.manifest import verify_manifest
from serving.loader.fresh_process import score_in_fresh_process

__all__ = ["measure_export", "scoring_requests"]

_MAX_ROWS = 16_384


def scoring_requests(rows: RawRows) -> dict[str, Mapping[str, np.ndarray]]:
    """The same rows as a request to each signature that scores, by its name."""
    examples = rows.examples()
    (serialized,) = examples.values()
    return {
        "serving_default": rows.by_name(),
        "compact": rows.compact(),
        "serialized_examples": examples,
        "classify": {"inputs": serialized},
        "regress": {"inputs": serialized},
    }


def measure_export(export_dir: Path, data: DataDirectory) -> Metrics:
    """Scores the raw held-out rows of a data directory's parity sample as TF Serving would.

    Args:
        export_dir: the SavedModel.
        data: that its run was trained on.

    Raises:
        GateError: it does not load or run, its signatures disagree, or there is no sample.
    """
    try:
        rows, encoded = real_rows(data, _MAX_ROWS)
    except (OSError, ValueError, KeyError) as error:
        raise GateError(
            "an export is measured on the held-out rows of its data directory",
            f"{data.path / 'parity_sample'} ({type(error).__name__}: {error})",
            "Restore that folder, or preprocess and train again.",
        ) from None
    asked = scoring_requests(rows)
    answers = dict(zip(asked, score_in_fresh_process(export_dir, list(asked.items())), strict=True))
    fingerprint = verify_manifest(export_dir, contents=False).fingerprint
    if found := disagreements(answers, num_rows=len(rows), fingerprint=fingerprint):
        raise GateError(
            "an export's signatures must agree on a probability a row and carry its fingerprint",
            f"{'; '.join(map(str, found[:5]))} ({len(rows)} held-out rows, {export_dir})",
            "Build it again: clickparity parity --run RUN_DIR.",
        )
    logits = np.asarray(answers["compact"]["logit"])
    return Metrics.of(evaluate(encoded["label"], logits, encoded["weight"])["overall"])
