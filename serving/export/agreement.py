"""Whether an export's signatures say the same of the same rows. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from scipy.special import expit

__all__ = ["Disagreement", "disagreements"]

Answers = Mapping[str, Mapping[str, np.ndarray]]

_MAX_LOGIT_DIFFERENCE = 1e-5  # DESIGN.md, section 4: that of the export's bar
# What that difference is to a probability, and what float32 loses in 1 - p and in sigmoid near 1.
_RELATIVE, _ABSOLUTE = 2e-5, 2e-7


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """One output that is not what the others say.

    Attributes:
        signature, output: whose it is.
        reason: rule and values, in words.
        largest: absolute difference; NaN where there is no number to compare.
    """

    signature: str
    output: str
    reason: str
    largest: float = float("nan")

    def __str__(self) -> str:
        return f"{self.signature}.{self.output} {self.reason}"


def disagreements(
    answers: Answers, *, num_rows: int, fingerprint: str, logits: np.ndarray | None = None
) -> list[Disagreement]:
    """Compares every output of every scoring signature, all asked about the same rows.

    Args:
        answers: signature -> output -> array. Those with a `probability` (serving_default, compact,
            serialized_examples), `classify` and `regress`; others are left alone.
        num_rows: that were asked about.
        fingerprint: of the run, which each answer must carry.
        logits: what all of them must say, float [num_rows]; by default what the first signature
            with a `logit` says.

    Returns:
        What is wrong, the outputs of the first signature first; nothing when all agree.
    """
    found: list[Disagreement] = []
    for name, answer in answers.items():
        if "probability" in answer:
            found += _unlike_a_prediction(name, answer, num_rows, fingerprint)
            if logits is None and not found:
                logits = answer["logit"]
    if found or logits is None:
        return found
    expected = expit(np.asarray(logits, np.float64))
    for name, answer in answers.items():
        if "probability" in answer:
            found += _different(name, "logit", answer["logit"], logits, _MAX_LOGIT_DIFFERENCE, 0.0)
            found += _different(name, "probability", answer["probability"], expected)
        elif name == "classify":
            found += _unlike_classes(answer.get("classes"), num_rows)
            scores = np.stack([1.0 - expected, expected], axis=1)
            found += _different(name, "scores", answer.get("scores"), scores)
        elif name == "regress":
            found += _different(name, "outputs", answer.get("outputs"), expected)
    return found


def _unlike_a_prediction(
    name: str, answer: Mapping[str, np.ndarray], num_rows: int, fingerprint: str
) -> Iterator[Disagreement]:
    """Faults of an answer by itself: shapes, range, fingerprint."""
    for output in ("probability", "logit", "model_fingerprint"):
        shape = answer[output].shape if output in answer else None
        if shape != (num_rows,):
            yield Disagreement(name, output, f"must be [{num_rows}], a value a row; got {shape}")
            return
    probability = answer["probability"]
    outside = ~((probability >= 0) & (probability <= 1))  # NaN is outside too
    if outside.any():
        values = probability[outside].tolist()[:5]
        yield Disagreement(name, "probability", f"must be between 0 and 1; got {values}")
    if not np.isfinite(answer["logit"]).all():
        yield Disagreement(name, "logit", f"must be finite; got {answer['logit'].tolist()[:5]}")
    prints = sorted({bytes(f).decode() for f in answer["model_fingerprint"].tolist()})
    if prints != [fingerprint]:
        yield Disagreement(name, "model_fingerprint", f"must be {fingerprint}; got {prints}")


def _unlike_classes(classes: np.ndarray | None, num_rows: int) -> Iterator[Disagreement]:
    rows = [] if classes is None else classes.tolist()
    if rows != [[b"0", b"1"]] * num_rows:
        yield Disagreement("classify", "classes", f"must be ['0', '1'] a row; got {rows[:2]}")


def _different(
    name: str,
    output: str,
    values: np.ndarray | None,
    expected: np.ndarray,
    absolute: float = _ABSOLUTE,
    relative: float = _RELATIVE,
) -> Iterator[Disagreement]:
    if values is None or values.shape != expected.shape:
        shape = None if values is None else values.shape
        yield Disagreement(name, output, f"must have the shape {expected.shape}; got {shape}")
        return
    difference = np.abs(np.asarray(values, np.float64) - expected)
    over = ~(difference <= absolute + relative * np.abs(expected))
    if over.any():
        worst = np.unravel_index(int(np.argmax(np.where(over, difference, -1.0))), over.shape)
        reason = f"must be {float(expected[worst]):.9g} as in other outputs; got {float(values[worst]):.9g}"
        yield Disagreement(name, output, reason, float(difference[worst]))
