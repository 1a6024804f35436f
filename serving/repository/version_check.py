"""The last look before a version becomes visible: it loads, and its signatures answer alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pipeline.errors import GateError
from pipeline.schema import plain_name
from serving.export.agreement import disagreements
from serving.export.manifest import verify_manifest

__all__ = ["loads_and_answers", "missing_rows"]

_Inputs = Mapping[str, np.ndarray]


def missing_rows(
    inputs: dict[str, list[str]], num_rows: int, names: dict[str, str] | None = None
) -> dict[str, np.ndarray]:
    """A `serving_default` request in which every value is missing.

    Args:
        inputs: raw columns by kind, as an export's manifest lists them.
        num_rows: batch size.
        names: of the inputs, by column; an export made before there were any names them by column.
    """
    texts = [*inputs["texts"], *inputs["images"]]
    names = names or {c: plain_name(c) for c in (*inputs["numbers"], *texts)}
    request = {names[c]: np.full(num_rows, np.nan, np.float32) for c in inputs["numbers"]}
    request |= {names[c]: np.full(num_rows, b"", object) for c in texts}
    return request


def loads_and_answers(export_dir: Path) -> None:
    """Loads an export once, as TF Serving would, in a process of its own, and asks it.

    It scores two rows in which everything is missing, replays its warm-up requests (an export made
    before there were any has none), and asks classify and regress about the same rows. All outputs
    of all signatures must say the same; `encode`, which scores nothing, is the transform parity
    check's.

    Raises:
        GateError: it does not load, does not run, refuses a warm-up request, answers with something
            else than probabilities and its own fingerprint, or its signatures disagree.
    """
    from serving.export.warmup_requests import WARMUP_PATH, read_warmup_requests
    from serving.loader.fresh_process import score_in_fresh_process

    manifest = verify_manifest(export_dir)
    names = manifest.extra.get("input_names")
    missing: dict[str, _Inputs] = {
        "serving_default": missing_rows(manifest.extra["inputs"], 2, names),
        "serialized_examples": {"examples": np.full(2, b"", object)},  # an Example of no feature
    }
    try:
        questions = [missing, *_by_rows(read_warmup_requests(export_dir))]
    except Exception as error:  # whatever is wrong with the file, TF Serving would refuse it
        raise GateError(
            "an export's warm-up requests must be readable",
            f"{export_dir / WARMUP_PATH}: {str(error).splitlines()[0][:300]}",
            "Build it again: clickparity parity --run RUN_DIR.",
        ) from error
    for question in questions:
        if "serialized_examples" in question:
            (examples,) = question["serialized_examples"].values()
            question |= {"classify": {"inputs": examples}, "regress": {"inputs": examples}}
    requests = [request for question in questions for request in question.items()]
    answers = iter(score_in_fresh_process(export_dir, requests))
    for question in questions:
        num_rows = len(next(iter(next(iter(question.values())).values())))
        found = disagreements(
            {signature: next(answers) for signature in question},
            num_rows=num_rows,
            fingerprint=manifest.fingerprint,
        )
        if found:
            raise GateError(
                "an export's signatures must agree on a probability a row and carry its fingerprint",
                f"{'; '.join(map(str, found[:5]))} ({num_rows} rows, {export_dir})",
                "Build it again: clickparity parity --run RUN_DIR.",
            )


def _by_rows(requests: Iterable[tuple[str, _Inputs]]) -> list[dict[str, _Inputs]]:
    """Groups warm-up requests that ask about the same rows: one a signature, of one batch size."""
    groups: dict[tuple[int, int], dict[str, _Inputs]] = {}
    asked: Counter[tuple[str, int]] = Counter()
    for signature, inputs in requests:
        num_rows = len(next(iter(inputs.values())))
        groups.setdefault((num_rows, asked[signature, num_rows]), {})[signature] = inputs
        asked[signature, num_rows] += 1
    return list(groups.values())
