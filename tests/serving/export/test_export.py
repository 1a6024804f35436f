"""The exported SavedModel, through TF Serving's loader in a process without this project's Python."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from scipy.special import expit
from tensorflow.core.protobuf import saved_model_pb2

from models.calibration import Calibration, LossCorrection
from models.config.model import parse_model_config
from models.trained_run import TrainedRun
from models.zoo import build_model
from pipeline.errors import ConfigError
from pipeline.records.encoded import model_inputs
from pipeline.schema import FeatureSchema
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.statistics.vocabulary import Vocabulary
from pipeline.transform.feature_transform import FeatureTransform
from pipeline.transform.parity_sample import real_rows
from pipeline.transform.raw_rows import RawRows
from serving.export.build import build_export, serving_module
from serving.export.manifest import verify_manifest
from serving.export.signatures import SIGNATURES, ServingModule
from serving.loader.fresh_process import score_in_fresh_process
from serving.parity.hostile_rows import hostile_rows
from serving.server.servable import Servable
from serving.server.status import ServingError

OPS = Path(__file__).with_name("serving_ops.txt")
BATCHES = (1, 7, 512)
LOGIT_BAR = 1e-5


@dataclasses.dataclass(frozen=True)
class Answers:
    """Answers of the export in a fresh process, by (signature, rows)."""

    real: RawRows
    encoded: dict[str, np.ndarray]
    by_request: dict[tuple[str, str], dict[str, np.ndarray]]


def without_missing(rows: RawRows) -> RawRows:
    """The same rows with half of the values made missing."""
    rng = np.random.default_rng(5)
    numbers, texts = rows.numbers.copy(), rows.texts.copy()
    numbers[rng.random(numbers.shape) < 0.5] = np.nan
    texts[rng.random(texts.shape) < 0.5] = b""
    return dataclasses.replace(rows, numbers=numbers, texts=texts)


def explicit_examples(rows: RawRows) -> np.ndarray:
    """tf.Examples that say NaN and "" where `RawRows.examples` leaves the feature out."""
    serialized = []
    for i in range(len(rows)):
        example = tf.train.Example()
        for j, name in enumerate(rows.schema.input_numbers):
            example.features.feature[name].float_list.value.append(rows.numbers[i, j])
        for j, name in enumerate(rows.schema.input_texts):
            example.features.feature[name].bytes_list.value.append(rows.texts[i, j])
        serialized.append(example.SerializeToString())
    return np.array(serialized, object)


@pytest.fixture(scope="module")
def answers(layer_run, tiny_data) -> Answers:
    """Every request of this file, in one fresh process."""
    real, encoded = real_rows(tiny_data, 512)
    holes = without_missing(real.take(slice(0, 64)))
    hostile = hostile_rows(tiny_data.schema, real)
    requests: dict[tuple[str, str], tuple[str, dict[str, np.ndarray]]] = {}
    groups = {f"{n} rows": real.take(slice(0, n)) for n in BATCHES}
    for label, rows in {**groups, "holes": holes, "hostile": hostile}.items():
        examples = rows.examples()["examples"]
        for name, inputs in (
            ("serving_default", rows.by_name()),
            ("compact", rows.compact()),
            ("serialized_examples", {"examples": examples}),
            ("classify", {"inputs": examples}),
            ("regress", {"inputs": examples}),
            ("encode", rows.compact()),
        ):
            requests[name, label] = (name, inputs)
    explicit = {"examples": explicit_examples(holes)}
    requests["serialized_examples", "explicit holes"] = ("serialized_examples", explicit)
    answered = score_in_fresh_process(layer_run.path / "export", list(requests.values()))
    return Answers(real, encoded, dict(zip(requests, answered, strict=True)))


@pytest.fixture(scope="module")
def saved(layer_run) -> saved_model_pb2.SavedModel:
    content = (layer_run.path / "export" / "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content)


def in_memory_logits(run: Any, encoded: dict[str, np.ndarray], n: int) -> np.ndarray:
    module = serving_module(TrainedRun(run))
    inputs = {key: tf.constant(value[:n]) for key, value in model_inputs(encoded).items()}
    return np.asarray(module.calibration.logits(module.model(inputs, training=False)))


# ------------------------------------------------------------------------------- what it answers


def test_every_signature_gives_the_training_time_logits(layer_run, answers: Answers) -> None:
    expected = in_memory_logits(layer_run, answers.encoded, 512)
    assert np.ptp(expected) > 0.01, "rows that all score alike would prove nothing"
    for n in BATCHES:
        for name in ("serving_default", "compact", "serialized_examples"):
            answer = answers.by_request[name, f"{n} rows"]
            assert answer["logit"].shape == (n,)
            np.testing.assert_allclose(answer["logit"], expected[:n], rtol=0, atol=LOGIT_BAR)


@pytest.mark.parametrize("label", [*(f"{n} rows" for n in BATCHES), "holes", "hostile"])
def test_all_forms_of_a_row_score_alike(label: str, answers: Answers) -> None:
    by_name = answers.by_request["serving_default", label]
    # Hostile numbers have logits of thousands, whose probability is 0 in float32.
    probability = expit(by_name["logit"].astype(np.float64))
    np.testing.assert_allclose(by_name["probability"], probability, rtol=1e-5, atol=1e-30)
    assert np.isfinite(by_name["logit"]).all()
    for name in ("compact", "serialized_examples"):
        other = answers.by_request[name, label]
        np.testing.assert_allclose(other["logit"], by_name["logit"], rtol=0, atol=LOGIT_BAR)
    classified = answers.by_request["classify", label]
    rows = len(by_name["logit"])
    assert classified["classes"].tolist() == [[b"0", b"1"]] * rows
    assert classified["scores"].shape == (rows, 2)
    np.testing.assert_allclose(classified["scores"][:, 1], by_name["probability"], atol=1e-6)
    np.testing.assert_allclose(classified["scores"].sum(axis=1), 1, atol=1e-6)
    regressed = answers.by_request["regress", label]
    assert set(regressed) == {"outputs"}
    np.testing.assert_allclose(regressed["outputs"], by_name["probability"], atol=1e-6)


def test_missing_is_missing_however_it_is_said(answers: Answers) -> None:
    by_name = answers.by_request["serving_default", "holes"]["logit"]
    absent = answers.by_request["serialized_examples", "holes"]["logit"]
    explicit = answers.by_request["serialized_examples", "explicit holes"]["logit"]
    np.testing.assert_array_equal(absent, explicit)
    np.testing.assert_allclose(absent, by_name, rtol=0, atol=LOGIT_BAR)
    whole = answers.by_request["serving_default", "512 rows"]["logit"][:64]
    assert np.abs(by_name - whole).max() > 1e-3, "missing values change a score"


def test_encode_gives_the_tensors_that_training_read(answers: Answers) -> None:
    for n in BATCHES:
        tensors = answers.by_request["encode", f"{n} rows"]
        assert {"numeric", "ids"} <= set(tensors)
        for key, value in tensors.items():
            np.testing.assert_array_equal(value, answers.encoded[key][:n], strict=True)


def test_every_answer_names_the_run(layer_run, answers: Answers) -> None:
    for name in ("serving_default", "compact", "serialized_examples"):
        found = answers.by_request[name, "7 rows"]["model_fingerprint"]
        assert found.tolist() == [layer_run.fingerprint.encode()] * 7


# ------------------------------------------------------------------------------- what it is made of


def test_signatures_and_their_methods(saved: saved_model_pb2.SavedModel, tiny_data) -> None:
    signatures = saved.meta_graphs[0].signature_def
    assert set(SIGNATURES) <= set(signatures)
    methods = {name: signatures[name].method_name for name in SIGNATURES}
    assert methods.pop("classify") == "tensorflow/serving/classify"
    assert methods.pop("regress") == "tensorflow/serving/regress"
    assert set(methods.values()) == {"tensorflow/serving/predict"}
    assert set(signatures["classify"].inputs) == set(signatures["regress"].inputs) == {"inputs"}
    assert set(signatures["classify"].outputs) == {"classes", "scores"}
    assert set(signatures["regress"].outputs) == {"outputs"}
    schema = tiny_data.schema
    named = signatures["serving_default"].inputs
    columns = (*schema.input_numbers, *schema.input_texts)
    assert set(named) == {schema.input_name(c) for c in columns}
    for column in columns:
        info = named[schema.input_name(column)]
        number = column in schema.input_numbers
        assert info.dtype == (tf.float32 if number else tf.string).as_datatype_enum
        assert [d.size for d in info.tensor_shape.dim] == [-1]
    assert "true_probability" not in named
    assert "click" not in named


def all_nodes(saved: saved_model_pb2.SavedModel) -> list[Any]:
    (graph,) = saved.meta_graphs
    inside = [n for f in graph.graph_def.library.function for n in f.node_def]
    return [*graph.graph_def.node, *inside]


def test_the_ops_are_those_that_a_server_has_long_had(saved: saved_model_pb2.SavedModel) -> None:
    known = {line for line in OPS.read_text().splitlines() if line and not line.startswith("#")}
    functions = {f.signature.name for f in saved.meta_graphs[0].graph_def.library.function}
    used = {node.op for node in all_nodes(saved)} - functions
    assert used <= known, (
        f"new ops: {sorted(used - known)}. Make sure that the oldest TF Serving you load with has "
        f"them, then add them to {OPS.name}."
    )
    assert not any("PyFunc" in op for op in used | known)


def test_nothing_ties_the_graph_to_a_device_or_to_xla(saved: saved_model_pb2.SavedModel) -> None:
    # TensorFlow itself puts the reading and writing of variables on the CPU.
    assert {n.device for n in all_nodes(saved)} <= {"", "/device:CPU:0", "/device:CPU:*"}
    for function in saved.meta_graphs[0].graph_def.library.function:
        if "traced_save" not in (n := function.signature.name) and "traced_restore" not in n:
            assert {node.device for node in function.node_def} <= {""}, n
    compiled = ("_XlaMustCompile", "_XlaCompile", "_xla_compile_id", "jit_compile")
    places = [("function", f) for f in saved.meta_graphs[0].graph_def.library.function]
    for name, place in [*((n.name, n) for n in all_nodes(saved)), *places]:
        for attribute in compiled:
            assert not place.attr[attribute].b if attribute in place.attr else True, name


def test_the_manifest_says_where_it_comes_from(layer_run, tiny_data) -> None:
    manifest = verify_manifest(layer_run.path / "export")
    assert manifest.fingerprint == layer_run.fingerprint
    assert manifest.extra["data_fingerprint"] == tiny_data.fingerprint
    assert manifest.extra["norm"] == "layer"
    assert manifest.metrics["auc"] == layer_run.read_json("metrics.json")["test"]["auc"]
    assert set(manifest.extra["inputs"]["numbers"]) == set(tiny_data.schema.input_numbers)


def test_a_large_vocabulary_is_not_in_the_graph(tmp_path: Path) -> None:
    """50,000 keys as constants would cost 29 bytes each, 1.5 MB, in saved_model.pb (limit: 2 GB)."""
    values = [f"value-{i:06d}".encode() for i in range(50_000)]
    features = [{"name": "ad", "kind": "categorical"}]
    schema = FeatureSchema.model_validate({"name": "t", "label": "y", "features": features})
    vocabulary = Vocabulary(pa.array(values, pa.binary()), np.ones(50_000, np.int64), 50_000)
    numbers = {"numeric": {}, "text": {}}
    transform = FeatureTransform(schema, FeatureStatistics(numbers, {"ad": vocabulary}))
    config = parse_model_config({"name": "dcn_v2", "hidden_units": [4], "embedding_dim": 2})
    module = ServingModule(
        transform,
        build_model(config, transform.spec),
        Calibration(LossCorrection()),
        "0" * 16,
    )
    encode = module.signatures()["encode"]
    tf.saved_model.save(module, str(tmp_path / "e"), signatures={"encode": encode})
    graph = (tmp_path / "e" / "saved_model.pb").read_bytes()
    assert len(graph) < 300_000
    assert b"value-000123" not in graph
    # A key of 8 bytes, an id of 4 and two float32 of embedding a row, once; the layers are small.
    data = sum(f.stat().st_size for f in (tmp_path / "e" / "variables").glob("variables.data-*"))
    assert 50_000 * 20 <= data < 50_000 * 20 + 60_000
    assert not list((tmp_path / "e" / "assets").glob("*"))
    texts = np.array([[values[0]], [values[49_999]], [b"unseen"], [b""]], object)
    (answer,) = score_in_fresh_process(tmp_path / "e", [("encode", {"texts": texts})])
    assert answer["ids"][:, 0].tolist() == [2, 50_001, 1, 0]


# ------------------------------------------------------------------------------- what it refuses


@pytest.fixture(scope="module")
def servable(layer_run) -> Iterator[Servable]:
    """The export in a session, which looks at no shape, as in TF Serving."""
    opened = Servable("ctr", 1, str(layer_run.path / "export"))
    yield opened
    opened.retire()


@pytest.mark.parametrize("signature", ["compact", "encode"])
@pytest.mark.parametrize("matrix", ["numbers", "texts"])
@pytest.mark.parametrize("columns", ["one", "one too few", "one too many", "none"])
def test_a_matrix_of_another_width_is_not_scored(
    signature: str, matrix: str, columns: str, servable: Servable, answers: Answers
) -> None:
    """Of one column it would be broadcast, of one too many the last be ignored."""
    inputs = answers.real.take(slice(0, 4)).compact()
    width = inputs[matrix].shape[1]
    taken = {"one": 1, "one too few": width - 1, "one too many": width + 1, "none": 0}[columns]
    inputs[matrix] = np.resize(inputs[matrix], (4, taken))
    with pytest.raises(ServingError, match="INVALID_ARGUMENT") as refused:
        servable.predict_arrays(signature, inputs)
    assert f"[?,{width}]" in refused.value.message


def test_columns_of_another_rank_are_not_scored(servable: Servable, answers: Answers) -> None:
    inputs = answers.real.take(slice(0, 4)).by_name()
    for changed in (
        {name: values[:, None] for name, values in inputs.items()},
        {name: np.array(values[0], values.dtype) for name, values in inputs.items()},
    ):
        with pytest.raises(ServingError, match="INVALID_ARGUMENT"):
            servable.predict_arrays("serving_default", changed)


def test_a_run_whose_data_is_gone_keeps_its_export(layer_run, copy_of, tmp_path: Path) -> None:
    run = copy_of(layer_run, data_path=tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"data directory must be finished.*gone.*preprocess"):
        build_export(TrainedRun(run))
    assert verify_manifest(run.path / "export").fingerprint == layer_run.fingerprint


def test_a_run_without_calibration_is_not_exported(layer_run, copy_of) -> None:
    run = copy_of(layer_run)
    (run.path / "calibration.json").unlink()
    with pytest.raises(ConfigError, match=r"calibration\.json.*clickparity train"):
        build_export(TrainedRun(run))


def test_a_transform_of_another_version_is_refused(layer_run, copy_of) -> None:
    run = copy_of(layer_run)
    spec = json.loads((run.path / "spec.json").read_text())
    changed = {**spec, "fingerprint": "0" * 16}
    (run.path / "spec.json").write_text(json.dumps(changed))
    with pytest.raises(ConfigError, match="transform must be the one"):
        build_export(TrainedRun(run))
