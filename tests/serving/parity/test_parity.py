"""The parity checks: what they measure, that they can fail, and that the gate believes only their bytes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.run_directory import RunDirectory
from models.run_steps import kept_evaluation
from models.trained_run import TrainedRun
from pipeline.errors import GateError
from pipeline.records.encoded import model_inputs
from pipeline.transform.feature_transform import FeatureTransform
from pipeline.transform.parity_sample import real_rows
from serving.export.build import serving_module
from serving.export.manifest import write_manifest
from serving.export.signatures import ServingModule
from serving.gates import ExportConfig, GateConfig
from serving.loader.fresh_process import score_in_fresh_process
from serving.parity import checks, export_checks
from serving.parity.checks import Check
from serving.parity.export_checks import differing_elements
from serving.parity.hostile_rows import hostile_rows
from serving.parity.logits import largest_difference
from serving.parity.outcome import ParityReport, export_digest
from serving.parity.report import write_report
from serving.run_steps import ask_gates
from tests.conftest import PARITY_BARS
from tests.damage import flip_a_bit

# The replica check is slow, and has its own test.
BARS = {name: bar for name, bar in PARITY_BARS.items() if name != "replica"}


def by_name(run: RunDirectory) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in run.read_json("parity.json")["checks"]}


def check_gate(run: RunDirectory, accepted: float | None) -> ParityReport:
    """The parity report, if no gate refuses the run for what it says."""
    test = kept_evaluation(run, "test")
    for verdict in ask_gates(
        run, test, GateConfig(), ExportConfig(accept_batch_gap=accepted), "clickparity export"
    ):
        verdict.raise_if_refused()
    return run.read_report("parity.json", ParityReport)


# ------------------------------------------------------------------------------- what is measured


def test_a_layer_norm_run_holds_every_bar(layer_run) -> None:
    report = layer_run.read_json("parity.json")
    assert report["passed"] is True
    assert report["has_batch_statistics"] is False
    found = by_name(layer_run)
    assert {name: found[name]["bar"] for name in BARS} == BARS
    for name, bar in BARS.items():
        assert found[name]["passed"] is True
        assert found[name]["value"] <= bar
    assert found["mode"]["value"] == 0
    assert set(found["batch, served"]["details"]["by_batch_size"]) == {
        "2", "7", "64", "512", "1000"
    }  # fmt: skip
    assert set(found["export"]["details"]["by_signature"]) == {
        "serving_default", "compact", "serialized_examples"
    }  # fmt: skip
    assert set(found["export"]["details"]["by_batch_size"]) == {
        "1", "2", "7", "64", "512", "1000"
    }  # fmt: skip
    assert set(found["server"]["details"]["by_protocol"]) == {"grpc", "rest"}
    assert check_gate(layer_run, None).run == layer_run.fingerprint


def test_a_batch_norm_run_is_measured_and_reported(batch_run) -> None:
    found = by_name(batch_run)
    assert batch_run.read_json("parity.json")["has_batch_statistics"] is True
    for name in ("mode", "batch, trained"):
        assert found[name]["bar"] is None
        assert found[name]["passed"] is None
        assert found[name]["value"] > 1e-3
    gaps = found["batch, trained"]["details"]["by_batch_size"]
    assert found["batch, trained"]["value"] == gaps["64"]
    assert set(gaps) == {"1", "2", "7", "64", "512", "1000"}
    # What it serves does not depend on the company of a row all the same.
    for name in ("batch, served", "transform", "export", "server"):
        assert found[name]["passed"] is True


def test_the_checks_leave_the_moving_statistics_alone(batch_run, tiny_data) -> None:
    model = batch_run.load_model(dropout=0.0)
    _, encoded = real_rows(tiny_data, 128)
    before = [v.numpy() for v in model.non_trainable_variables]
    assert before, "a batch-norm model has moving statistics"
    checks.mode(model, encoded)
    checks.batch_trained(model, encoded, alone=4)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_batch_trained_is_the_gap_by_hand(batch_run, tiny_data) -> None:
    """At a batch that holds all rows, training mode is one call on all of them."""
    _, encoded = real_rows(tiny_data, 512)
    found = checks.batch_trained(batch_run.load_model(dropout=0.0), encoded)
    model = batch_run.load_model(dropout=0.0)
    inputs = {key: tf.constant(value) for key, value in model_inputs(encoded).items()}
    served = model(inputs, training=False).numpy()
    trained = model(inputs, training=True).numpy()
    by_hand = np.abs(served - trained).max()
    assert found.details["by_batch_size"]["512"] == pytest.approx(by_hand, rel=1e-4)


# ------------------------------------------------------------------------------- that it can fail


def rebuilt(module: ServingModule, transform: FeatureTransform) -> ServingModule:
    return ServingModule(transform, module.model, module.calibration, module.fingerprint)


def test_a_transform_skewed_by_a_hair_is_caught(
    layer_run, tiny_data, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = serving_module(TrainedRun(layer_run))
    skewed = serving_module(TrainedRun(layer_run)).transform
    constants = skewed._numeric
    mean = constants.mean + np.eye(len(constants.mean))[0] * 1e-6
    skewed._numeric = dataclasses.replace(constants, mean=mean)
    real, encoded = real_rows(tiny_data, 64)
    hostile = hostile_rows(tiny_data.schema, real)

    def answers_of(transform: FeatureTransform) -> Callable[..., list[dict[str, np.ndarray]]]:
        encode = tf.function(
            lambda numbers, texts: transform.encode(numbers, texts), reduce_retracing=True
        )

        def answer(export_dir: Path, requests: list[Any]) -> list[dict[str, np.ndarray]]:
            found = [encode(i["numbers"], tf.constant(i["texts"])) for _, i in requests]
            return [{k: v.numpy() for k, v in tensors.items()} for tensors in found]

        return answer

    def check() -> Check:
        asked = export_checks.transform_equality(module, real, encoded, hostile)
        return export_checks.ask(Path("unused"), [asked])[0]

    monkeypatch.setattr(export_checks, "score_in_fresh_process", answers_of(module.transform))
    assert check().value == 0
    monkeypatch.setattr(export_checks, "score_in_fresh_process", answers_of(skewed))
    found = check()
    assert found.passed is False
    assert all(found.details["differing"][f"real, batch {n}"] for n in (1, 7, 64))


@pytest.fixture(scope="module")
def poisoned(layer_run, tiny_data) -> list[Check]:
    """The checks of a model with one NaN weight in its last layer."""
    model = layer_run.load_model(dropout=0.0)
    weight = next(v for v in model.trainable_variables if v.shape.rank == 2 and v.shape[1] == 1)
    weight.assign(tf.fill(weight.shape, float("nan")))
    _, encoded = real_rows(tiny_data, 32)
    return [
        checks.mode(model, encoded),
        checks.batch_served(model, encoded, alone=2),
        checks.batch_trained(model, encoded, alone=2),
    ]


def test_weights_that_are_not_numbers_fail(poisoned: list[Check]) -> None:
    assert [c.passed for c in poisoned] == [False, False, False]
    for check in poisoned:
        json.dumps(check.to_json(), allow_nan=False)
        assert check.to_json()["value"] == "inf"


def test_a_failed_report_is_written_and_refused(
    poisoned: list[Check], layer_run, copy_of, tmp_path: Path
) -> None:
    run = copy_of(layer_run)
    report = run.read_report("parity.json", ParityReport)
    report = dataclasses.replace(report, checks=(*poisoned, *report.checks[3:]))
    run.write_json("parity.json", report.to_json())
    write_report(tmp_path / "failed.html", [report])
    assert "fails a bar" in (tmp_path / "failed.html").read_text()
    with pytest.raises(GateError, match=r"every parity bar must hold.*mode: inf > 0"):
        check_gate(run, 100.0)


@pytest.mark.parametrize(
    "a, b, largest",
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([1.0], [1.0, 1.0], np.inf),
        ([np.nan], [np.nan], np.inf),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([np.inf], [np.inf], np.inf),
        ([], [], 0.0),
    ],
)
def test_the_largest_difference(a: list[float], b: list[float], largest: float) -> None:
    assert largest_difference(np.array(a, np.float32), np.array(b, np.float32)) == largest


def test_a_bar_is_not_held_by_what_is_no_number() -> None:
    assert Check("x", "", float("nan"), 1.0).passed is False
    assert Check("x", "", 1.0, 1.0).passed is True
    assert Check("x", "", 1.0 + 1e-9, 1.0).passed is False
    assert Check("x", "", float("nan"), None).passed is None


def test_bits_are_compared_not_values() -> None:
    same = np.array([0.0, np.nan, 1.0], np.float32)
    assert differing_elements(same, same.copy()) == 0
    assert differing_elements(same, np.array([-0.0, np.nan, 1.0], np.float32)) == 1
    assert differing_elements(same, same.astype(np.float64)) == 3
    assert differing_elements(same, same[:2]) == 3


def test_an_export_that_needs_this_project_fails(tmp_path: Path) -> None:
    class Leans(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"logit": tf.numpy_function(np.negative, [x], tf.float32)}

    module = Leans()
    tf.saved_model.save(module, str(tmp_path / "e"), signatures=module.__call__)
    request = [("serving_default", {"x": np.zeros(2, np.float32)})]
    with pytest.raises(GateError, match="without this project's Python"):
        score_in_fresh_process(tmp_path / "e", request)


# ------------------------------------------------------------------------------- only these bytes


def flip_a_byte(export: Path, other: Path) -> None:
    flip_a_bit(next(export.glob("variables/variables.data*")))


def add_a_file(export: Path, other: Path) -> None:
    (export / "assets" / "more.txt").parent.mkdir(exist_ok=True)
    (export / "assets" / "more.txt").write_text("more")


def remove_a_file(export: Path, other: Path) -> None:
    next(export.glob("variables/variables.index")).unlink()


def swap_in_another(export: Path, other: Path) -> None:
    shutil.rmtree(export)
    shutil.copytree(other, export)


def flip_and_seal(export: Path, other: Path) -> None:
    """An edit with a manifest written anew: sound in itself, but not what was checked."""
    flip_a_byte(export, other)
    write_manifest(export, fingerprint="0" * 16, extra={})


@pytest.mark.parametrize(
    "tamper, rule",
    [
        (flip_a_byte, "altered"),
        (add_a_file, "more.txt is extra"),
        (remove_a_file, "missing"),
        (swap_in_another, "must be the one that parity was proved for"),
        (flip_and_seal, "must be the one that parity was proved for"),
    ],
)
def test_a_tampered_export_is_refused(
    tamper: Callable[[Path, Path], None], rule: str, layer_run, batch_run, copy_of
) -> None:
    run = copy_of(layer_run)
    check_gate(run, None)
    tamper(run.path / "export", batch_run.path / "export")
    with pytest.raises(GateError, match=rule):
        check_gate(run, None)


def test_an_export_that_is_gone_is_to_be_built(layer_run, copy_of) -> None:
    run = copy_of(layer_run)
    shutil.rmtree(run.path / "export")
    with pytest.raises(GateError, match="clickparity parity"):
        check_gate(run, None)


def test_a_damaged_export_is_proved_anew(
    layer_run, copy_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.parity import suite
    from serving.run_steps import prove_run

    run = TrainedRun(copy_of(layer_run))
    monkeypatch.setattr(suite, "run_parity", lambda *_, **__: {"anew": True})
    assert prove_run(run) == run.run.read_report("parity.json", ParityReport)
    flip_a_byte(run.run.path / "export", run.run.path)
    assert prove_run(run) == {"anew": True}


def test_the_digest_covers_every_file(layer_run, copy_of) -> None:
    run = copy_of(layer_run)
    before = export_digest(run.path / "export")
    flip_and_seal(run.path / "export", run.path)
    assert export_digest(run.path / "export") != before


@pytest.mark.parametrize("accepted", [None, 1e-9])
def test_a_batch_gap_that_is_not_accepted(accepted: float | None, batch_run) -> None:
    gap = by_name(batch_run)["batch, trained"]["value"]
    with pytest.raises(GateError, match="accept_batch_gap") as refused:
        check_gate(batch_run, accepted)
    assert f"{gap:.3g}" in str(refused.value)


def test_a_batch_gap_that_is_accepted(batch_run) -> None:
    gap = by_name(batch_run)["batch, trained"]["value"]
    assert check_gate(batch_run, gap).norm == "batch"
    with pytest.raises(GateError):
        check_gate(batch_run, np.nextafter(gap, 0))


# ------------------------------------------------------------------------------- the page


def test_the_page_shows_both_runs_beside_each_other(layer_run, batch_run, tmp_path: Path) -> None:
    assert (layer_run.path / "parity.html").is_file()
    reports = [run.read_report("parity.json", ParityReport) for run in (layer_run, batch_run)]
    write_report(tmp_path / "both.html", reports)
    text = (tmp_path / "both.html").read_text()
    for run in (layer_run, batch_run):
        assert run.fingerprint in text
    assert text.count("<table>") == 2
    assert "dcn_v2, layer norm" in text
    assert "dcn_v2, batch norm" in text
    assert "<img alt=" in text
    assert "src='data:image/png;base64," in text
