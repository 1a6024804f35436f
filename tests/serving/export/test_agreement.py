"""Signatures that disagree are found: in plain arrays, and in a real export that was tampered with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import GateError
from serving.export.agreement import disagreements
from serving.export.manifest import verify_manifest, write_manifest
from serving.export.warmup_requests import WARMUP_PATH
from serving.repository.version_check import loads_and_answers

LOGITS = np.array([-2.0, 0.5, 3.0], np.float32)
# 1 / (1 + e^2), 1 / (1 + e^-0.5), 1 / (1 + e^-3)
PROBABILITY = np.array([0.11920292, 0.62245933, 0.95257413], np.float32)


def prediction() -> dict[str, np.ndarray]:
    prints = np.array([b"run"] * 3, object)
    return {
        "probability": PROBABILITY.copy(),
        "logit": LOGITS.copy(),
        "model_fingerprint": prints,
    }


def good() -> dict[str, dict[str, np.ndarray]]:
    return {
        "serving_default": prediction(),
        "compact": prediction(),
        "serialized_examples": prediction(),
        "classify": {
            "classes": np.array([[b"0", b"1"]] * 3, object),
            "scores": np.stack([np.float32(1) - PROBABILITY, PROBABILITY], axis=1),
        },
        "regress": {"outputs": PROBABILITY.copy()},
    }


def found(answers, **options) -> list[str]:
    return [
        f"{fault.signature}.{fault.output}"
        for fault in disagreements(answers, num_rows=3, fingerprint="run", **options)
    ]


def test_signatures_that_agree():
    assert found(good()) == []
    assert found(good(), logits=LOGITS + 9e-6) == []  # the export bar of DESIGN.md is 1e-5


def test_the_models_own_numbers_decide_where_they_are_given():
    assert found(good(), logits=LOGITS + 1e-3)[:2] == [
        "serving_default.logit",
        "serving_default.probability",
    ]
    assert len(found(good(), logits=LOGITS + 1e-3)) == 8  # every output with a number


def change(signature: str, output: str, new: Callable[[np.ndarray], np.ndarray | None]):
    answers = good()
    value = new(answers[signature][output])
    if value is None:
        del answers[signature][output]
    else:
        answers[signature][output] = value
    return answers


def with_value(value: object) -> Callable[[np.ndarray], np.ndarray]:
    def changed(array: np.ndarray) -> np.ndarray:
        array[1] = value
        return array

    return changed


@pytest.mark.parametrize(
    "signature,output,new",
    [
        ("classify", "scores", lambda a: a[:, ::-1]),
        ("classify", "scores", lambda a: a[:2]),
        ("classify", "scores", lambda a: np.stack([a[:, 1], a[:, 1]], axis=1)),
        ("classify", "scores", with_value(np.nan)),
        ("classify", "scores", lambda a: None),
        ("classify", "classes", lambda a: a[:, ::-1]),
        ("classify", "classes", lambda a: a[:2]),
        ("classify", "classes", lambda a: None),
        ("regress", "outputs", lambda a: 1 - a),
        ("regress", "outputs", lambda a: a[::-1]),
        ("regress", "outputs", lambda a: a[:, None]),
        ("regress", "outputs", with_value(np.nan)),
        ("regress", "outputs", lambda a: None),
        ("serving_default", "probability", lambda a: 1 - a),
        ("serving_default", "probability", lambda a: a * np.float32(1 + 1e-4)),
        ("serving_default", "probability", with_value(np.nan)),
        ("serving_default", "probability", with_value(1.001)),
        ("serving_default", "probability", with_value(-0.001)),
        ("serving_default", "probability", lambda a: a[:2]),
        ("serving_default", "probability", lambda a: a[:, None]),
        ("serving_default", "model_fingerprint", with_value(b"other")),
        ("serving_default", "model_fingerprint", lambda a: a[:2]),
        ("serving_default", "model_fingerprint", lambda a: None),
        ("serving_default", "logit", with_value(np.nan)),
        ("serving_default", "logit", with_value(np.inf)),
        ("serving_default", "logit", lambda a: None),
        ("compact", "probability", with_value(2.0)),
        ("compact", "logit", lambda a: a + np.float32(2e-5)),
        ("compact", "model_fingerprint", lambda a: np.array([b"other"] * 3, object)),
        ("serialized_examples", "probability", lambda a: a[::-1]),
        ("serialized_examples", "logit", lambda a: a[::-1]),
    ],
)
def test_each_output_that_is_another(signature, output, new):
    assert f"{signature}.{output}" in found(change(signature, output, new))


def test_the_fault_says_what_was_expected_and_what_came():
    swapped = change("classify", "scores", lambda a: a[:, ::-1])
    (fault,) = disagreements(swapped, num_rows=3, fingerprint="run")
    assert str(fault) == (
        "classify.scores must be 0.0474258732 as in other outputs; got 0.952574134"
    )
    assert fault.largest == pytest.approx(0.905148, abs=1e-6)


def test_extreme_logits_agree_with_their_saturated_probabilities():
    logits = np.array([-100.0, 17.0, 100.0], np.float32)
    probability = tf.sigmoid(logits).numpy()
    answers = good()
    for name in ("serving_default", "compact", "serialized_examples"):
        answers[name] |= {"logit": logits, "probability": probability}
    answers["classify"]["scores"] = np.stack([np.float32(1) - probability, probability], axis=1)
    answers["regress"]["outputs"] = probability
    assert found(answers) == []


@pytest.mark.parametrize("logit,probability", [(100.0, 1.0000001), (-100.0, -1e-8)])
def test_a_probability_a_hair_outside_its_range_is_none(logit, probability):
    answer = prediction() | {
        "logit": np.full(3, logit, np.float32),
        "probability": np.full(3, probability, np.float32),
    }
    (fault,) = disagreements({"compact": answer}, num_rows=3, fingerprint="run")
    assert "must be between 0 and 1" in str(fault)


# ------------------------------------------------------------------------ at publish


def tampered(
    export: Path, goal: Path, edit: Callable[[str, dict[str, tf.Tensor]], dict[str, tf.Tensor]]
) -> Path:
    """A SavedModel around an export whose signatures answer as `edit` says; its manifest in order."""
    loaded = tf.saved_model.load(str(export))
    module = tf.Module()
    module.loaded = loaded

    def wrapped(name: str):
        signature = loaded.signatures[name]
        (_, specs) = signature.structured_input_signature
        function = tf.function(lambda **inputs: edit(name, dict(signature(**inputs))))
        return function.get_concrete_function(**specs)

    tf.saved_model.save(module, str(goal), signatures={n: wrapped(n) for n in loaded.signatures})
    (goal / "assets.extra").mkdir(exist_ok=True)
    shutil.copy(export / WARMUP_PATH, goal / WARMUP_PATH)
    manifest = verify_manifest(export)
    write_manifest(goal, fingerprint=manifest.fingerprint, extra=manifest.extra)
    return goal


def replacing(signature: str, output: str, new: Callable[[tf.Tensor], tf.Tensor]):
    def edit(name: str, outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        if name == signature:
            outputs[output] = new(outputs[output])
        return outputs

    return edit


def without_warmup(export: Path) -> Path:
    manifest = verify_manifest(export)
    (export / WARMUP_PATH).unlink()
    write_manifest(export, fingerprint=manifest.fingerprint, extra=manifest.extra)
    return export


def test_an_export_that_is_only_wrapped_is_let_through(layer_run, tmp_path):
    loads_and_answers(tampered(layer_run.path / "export", tmp_path / "t", lambda _, out: out))


@pytest.mark.parametrize(
    "signature,output,new",
    [
        ("classify", "scores", lambda x: tf.reverse(x, [1])),
        ("serving_default", "probability", lambda x: x * float("nan")),
        # wrong in the last row of the largest warm-up batch alone
        ("regress", "outputs", lambda x: tf.where(tf.range(tf.size(x)) == 511, 1.0 - x, x)),
    ],
)
def test_a_tampered_signature_is_refused_at_publish(layer_run, tmp_path, signature, output, new):
    export = tampered(layer_run.path / "export", tmp_path / "t", replacing(signature, output, new))
    with pytest.raises(GateError, match=f"signatures must agree.*{signature}.{output} must"):
        loads_and_answers(export)


def test_an_old_export_without_warm_up_is_asked_about_missing_rows(layer_run, tmp_path):
    edit = replacing("regress", "outputs", lambda x: 1.0 - x)
    export = without_warmup(tampered(layer_run.path / "export", tmp_path / "t", edit))
    with pytest.raises(GateError, match=r"regress\.outputs must be .* \(2 rows"):
        loads_and_answers(export)


def test_an_export_of_another_run_is_refused(layer_run, tmp_path):
    goal = tmp_path / "export"
    shutil.copytree(layer_run.path / "export", goal)
    manifest = verify_manifest(goal)
    write_manifest(goal, fingerprint="another", extra=manifest.extra)
    with pytest.raises(GateError, match=f"must be another; got .'{manifest.fingerprint}'"):
        loads_and_answers(without_warmup(goal))
