"""The checks of the exported bytes, in a fresh process: the transform bit by bit, and the logits.

A check here is a question, `Asked`: what it wants to know of the export, and how it judges the answers.
`ask` puts several to one process, because to start TensorFlow costs seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.records.encoded import model_inputs
from pipeline.transform.raw_rows import RawRows
from serving.export.agreement import Disagreement, disagreements
from serving.export.signatures import ServingModule
from serving.held_out import scoring_requests
from serving.loader.fresh_process import Request, score_in_fresh_process
from serving.loader.loader_choice import Loader
from serving.parity.checks import BATCH_SIZES, LOGIT_BAR, Check
from serving.parity.logits import Encoded, largest_difference, logit_function

__all__ = ["Asked", "ask", "differing_elements", "export_equality", "transform_equality"]

Answers = Sequence[Mapping[str, np.ndarray]]
_FORMS = ("serving_default", "compact", "serialized_examples")  # those that answer with a logit
_MAX_REQUESTS = 32
"""Of a batch size and signature: the first rows stand for the others."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """Requests to an export, and the check that their answers make.

    Attributes:
        requests: (signature, inputs) of each.
        judge: the answers, in the same order -> the check.
    """

    requests: list[Request]
    judge: Callable[[Answers], Check]


def ask(export_dir: Path, asked: Sequence[Asked]) -> list[Check]:
    """The checks of several questions, answered by one fresh process.

    Raises:
        GateError: the export does not load or does not run there.
    """
    answers = score_in_fresh_process(export_dir, [r for each in asked for r in each.requests])
    checks, start = [], 0
    for each in asked:
        checks.append(each.judge(answers[start : start + len(each.requests)]))
        start += len(each.requests)
    return checks


def transform_equality(
    module: ServingModule, real: RawRows, beam_encoded: Encoded, hostile: RawRows
) -> Asked:
    """Beam's tensors against the exported graph's, bit by bit, at batch 1, 7 and whole.

    Real rows are compared with the bytes that the Beam job wrote; hostile ones with the transform
    as a Beam worker calls it.
    """
    keys = list(model_inputs(beam_encoded))
    expected = {"real": {k: beam_encoded[k] for k in keys}}
    expected["hostile"] = module.transform.encode_numpy(
        hostile.numbers, hostile.texts, hostile.images
    )
    requests: list[Request] = []
    places: list[tuple[str, int, slice]] = []
    for name, rows in (("real", real), ("hostile", hostile)):
        for size, limit in ((1, 64), (7, 140), (len(rows), len(rows))):
            for start in range(0, min(limit, len(rows)), size):
                part = slice(start, min(start + size, len(rows)))
                requests.append(("encode", rows.take(part).compact()))
                places.append((name, size, part))

    def judge(answers: Answers) -> Check:
        differing: dict[str, int] = {}
        for (name, size, part), answer in zip(places, answers, strict=True):
            label = f"{name}, batch {size}"
            wrong = sum(differing_elements(answer[k], expected[name][k][part]) for k in keys)
            differing[label] = differing.get(label, 0) + wrong
        return Check(
            "transform",
            f"Beam's tensors against the export's, bit by bit: {len(real)} real and {len(hostile)} "
            "hostile rows; value = elements that differ",
            float(sum(differing.values())),
            0.0,
            {"differing": differing},
        )

    return Asked(requests, judge)


def differing_elements(a: np.ndarray, b: np.ndarray) -> int:
    """Elements whose bits differ; every element when the shapes or types do."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return max(a.size, b.size, 1)
    if not a.size:
        return 0
    a, b = (np.ascontiguousarray(x).view(np.uint8).reshape(x.size, -1) for x in (a, b))
    return int((a != b).any(axis=1).sum())


def export_equality(
    module: ServingModule,
    export_dir: Path,
    real: RawRows,
    beam_encoded: Encoded,
    *,
    loader: Loader | None = None,
) -> Asked:
    """Keras in memory on Beam's tensors against the SavedModel on the raw rows, in a fresh process.

    Every signature is asked at batch 1 and at `BATCH_SIZES`, and every output compared with what the
    model says. With a `loader` also TF Serving's own is asked, in a process without Python.
    """
    raw_logits = logit_function(module.model, training=False)(beam_encoded)
    expected = np.asarray(module.calibration.logits(tf.constant(raw_logits)))
    sizes = sorted({min(size, len(real)) for size in (1, *BATCH_SIZES)})
    questions: list[tuple[int, slice, dict[str, Mapping[str, np.ndarray]]]] = []
    for size in sizes:
        for start in range(0, len(real) - size + 1, size)[:_MAX_REQUESTS]:
            part = slice(start, start + size)
            questions.append((size, part, scoring_requests(real.take(part))))
    requests: list[Request] = [r for _, _, asked in questions for r in asked.items()]

    def judge(answers: Answers) -> Check:
        by_signature, by_size = dict.fromkeys(_FORMS, 0.0), dict.fromkeys(map(str, sizes), 0.0)
        faults: list[Disagreement] = []
        answer = iter(answers)
        for size, part, asked in questions:
            outputs = {name: next(answer) for name in asked}
            for name in _FORMS:
                logits = outputs[name].get("logit", np.empty(0))
                gap = largest_difference(logits, expected[part])
                by_signature[name] = max(by_signature[name], gap)
                by_size[str(size)] = max(by_size[str(size)], gap)
            faults += disagreements(
                outputs, num_rows=size, fingerprint=module.fingerprint, logits=expected[part]
            )
        by_loader = {"python session": max(by_signature.values())}
        details: dict[str, Any] = {"by_signature": by_signature, "by_batch_size": by_size}
        details["rows"] = len(real)
        if faults:
            details["disagreements"] = [str(fault) for fault in faults[:5]]
        if loader is not None and loader.binary is not None:
            found = loader.logits(
                export_dir,
                {n: inputs for n, inputs in scoring_requests(real).items() if n in _FORMS},
            )
            by_loader["c++"] = max(largest_difference(z, expected) for z in found.values())
        elif loader is not None:
            details["c++ skipped"] = loader.reason
        return Check(
            "export",
            "Keras in memory against the SavedModel in a fresh process, through TF Serving's loader",
            max(*by_loader.values(), *map(_beyond_the_bar, faults), 0.0),
            LOGIT_BAR,
            {**details, "by_loader": by_loader},
        )

    return Asked(requests, judge)


def _beyond_the_bar(fault: Disagreement) -> float:
    """Its difference; infinite where that is no number, or held by the bar of logits."""
    return fault.largest if fault.largest > LOGIT_BAR else float("inf")
