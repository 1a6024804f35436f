"""What the exported bytes say is measured: in parity against the model, at publish against labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from models.run_directory import RunDirectory
from models.run_steps import kept_evaluation
from models.trained_run import TrainedRun
from pipeline.errors import GateError
from pipeline.records.data_directory import DataDirectory
from pipeline.transform.parity_sample import real_rows
from serving.export.build import build_export
from serving.export.signatures import ServingModule
from serving.gates import GateConfig, held_out_gate
from serving.held_out import measure_export
from serving.parity.checks import Check
from serving.parity.export_checks import ask, export_equality

Edit = Callable[[str, dict[str, tf.Tensor]], None]


class Edited(ServingModule):
    """Answers otherwise than the model, under the signatures' own names and shapes."""

    edit: Edit

    def signatures(self):
        def edited(name, signature):
            positional, by_name = signature.structured_input_signature
            specs = {**{spec.name: spec for spec in positional}, **by_name}

            @tf.function
            def answer(**inputs):
                outputs = dict(signature(**inputs))
                self.edit(name, outputs)
                return outputs

            return answer.get_concrete_function(**specs)

        return {name: edited(name, made) for name, made in super().signatures().items()}


def parity_of(run: RunDirectory, data: DataDirectory, edit: Edit) -> Check:
    trained = TrainedRun(run)
    module = Edited(trained.transform, trained.model, trained.calibration, run.fingerprint)
    module.edit = edit
    real, encoded = real_rows(data, 8)
    export = build_export(trained, module)
    (check,) = ask(export, [export_equality(module, export, real, encoded)])
    return check


def swap_the_scores(name, outputs):
    if name == "classify":
        outputs["scores"] = tf.reverse(outputs["scores"], [1])


def turn_the_regression(name, outputs):
    if name == "regress":
        outputs["outputs"] = 1.0 - outputs["outputs"]


def turn_the_probability(name, outputs):
    if name == "compact":
        outputs["probability"] = 1.0 - outputs["probability"]


def another_fingerprint(name, outputs):
    if name == "serialized_examples":
        outputs["model_fingerprint"] = tf.fill(tf.shape(outputs["logit"]), "another")


@pytest.mark.parametrize(
    "edit, output",
    [
        (lambda name, outputs: None, ""),
        (swap_the_scores, "classify.scores"),
        (turn_the_regression, "regress.outputs"),
        (turn_the_probability, "compact.probability"),
        (another_fingerprint, "serialized_examples.model_fingerprint"),
    ],
)
def test_parity_compares_every_output_of_every_signature(
    edit: Edit, output: str, layer_run: RunDirectory, tiny_data: DataDirectory, copy_of
) -> None:
    check = parity_of(copy_of(layer_run), tiny_data, edit)
    assert check.passed is not bool(output)
    if output:
        assert check.details["disagreements"][0].startswith(output)
    else:
        assert "disagreements" not in check.details


def test_twenty_fold_odds_are_refused_by_the_labels(
    layer_run: RunDirectory, tiny_data: DataDirectory, copy_of
) -> None:
    run = copy_of(layer_run)
    claimed = kept_evaluation(run, "test")
    good = measure_export(run.path / "export", tiny_data)
    assert held_out_gate(good, claimed, GateConfig(), run.path).passed
    document = run.read_json("calibration.json")
    residual = document["calibration"]["residual"]
    assert residual["kind"] == "platt", json.dumps(residual)
    residual["intercept"] += 3.0
    run.write_json("calibration.json", document)
    measured = measure_export(build_export(TrainedRun(run)), tiny_data)
    verdict = held_out_gate(measured, measured, GateConfig(), run.path)  # claims of its own
    with pytest.raises(GateError, match="near the label rate of held-out rows"):
        verdict.raise_if_refused()
    assert len(held_out_gate(measured, claimed, GateConfig(), run.path).reasons) == 2


def test_without_its_sample_an_export_is_not_measured(
    layer_run: RunDirectory, tiny_data: DataDirectory, tmp_path: Path
) -> None:
    nowhere = DataDirectory(tmp_path, tiny_data.fingerprint, tiny_data.summary)
    with pytest.raises(GateError, match=r"parity_sample.*Restore that folder"):
        measure_export(layer_run.path / "export", nowhere)
