"""The contract of TF Serving's wire, on the embedded server or on a real TF Serving.

For the real one: publish the model with `python -m tests.serving.server_fixtures MODELS_DIR`, serve
it under its name, and set TF_SERVING_ADDRESS=HOST:GRPC_PORT,HOST:REST_PORT. Messages are compared
whole but for the names of graph nodes, which the TensorFlow that runs them chooses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.serving.server_fixtures import (
    MODEL,
    PATH,
    Served,
    call,
    contract_server,
    example,
    expected_logits,
    exported,
    float32,
    predict,
    predict_request,
    publish,
    tensor_of,
)

TEN_MEGABYTES = 10_000_000
FLOAT = types_pb2.DT_FLOAT


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with contract_server(tmp_path_factory.mktemp("models")) as running:
        yield running


def test_predict_over_grpc(served: Served) -> None:
    price, city = [1.0, float("nan"), -4.0], [b"ab", b"", b"\xff\x00x"]
    request = predict_request(price=float32(price), city=city)
    response = predict_pb2.PredictResponse.FromString(
        call(served.channel, "Predict", request.SerializeToString())
    )
    assert response.model_spec.name == MODEL
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"
    assert set(response.outputs) == {"probability", "logit"}
    logits = expected_logits(1.0, price, city)
    np.testing.assert_allclose(response.outputs["logit"].float_val, logits, rtol=1e-6)
    np.testing.assert_allclose(
        response.outputs["probability"].float_val, 1 / (1 + np.exp(-logits)), rtol=1e-6
    )


def test_predict_rows_and_columns_over_rest(served: Served) -> None:
    status, body = served.post(
        {"instances": [{"price": 2, "city": "ab"}, {"price": 0.5, "city": {"b64": "/wB4"}}]}
    )
    assert status == 200
    rows = json.loads(body)["predictions"]
    assert [row.keys() for row in rows] == [{"logit", "probability"}] * 2
    assert [row["logit"] for row in rows] == [2.5, 2.0]
    assert rows[1]["probability"] == pytest.approx(0.880797078, abs=1e-7)
    status, body = served.post({"inputs": {"price": [2, 0.5], "city": ["ab", {"b64": "/wB4"}]}})
    assert status == 200
    assert json.loads(body)["outputs"]["logit"] == [2.5, 2.0]


def test_a_single_input_and_a_single_output_go_without_names(served: Served) -> None:
    assert _json(served.post({"signature_name": "one_to_one", "instances": [0, 3]})) == {
        "predictions": [1.0, 2.5]
    }
    assert _json(
        served.post({"signature_name": "one_to_one", "instances": [{"price": 0}, {"price": 3}]})
    ) == {"predictions": [1.0, 2.5]}
    assert _json(served.post({"signature_name": "one_to_one", "inputs": [0, 3]})) == {
        "outputs": [1.0, 2.5]
    }
    assert _json(served.post({"signature_name": "one_to_one", "inputs": {"price": [0, 3]}})) == {
        "outputs": [1.0, 2.5]
    }


def test_nested_lists_text_and_bytes(served: Served) -> None:
    body = {"signature_name": "echo", "instances": [{"ids": [1, -(2**63)], "raw": 'é"\\\n'}]}
    (row,) = _json(served.post(body))["predictions"]
    assert row == {"ids": [1, -(2**63)], "text": 'é"\\\n', "raw_bytes": {"b64": "w6kiXAo="}}


@pytest.mark.parametrize("text", ["YQ==", "YQ", "YQ..", " Y Q\n= =", "YQ=."])
def test_base64_as_absl_reads_it(served: Served, text: str) -> None:
    """Padding whole or missing, with dots for it too, and white space anywhere."""
    body = {"signature_name": "echo", "inputs": {"ids": [[1, 2]], "raw": [{"b64": text}]}}
    status, answer = served.post(body)
    assert (status, json.loads(answer)["outputs"]["text"]) == (200, ["a"])


def test_numbers_are_written_so_that_float32_comes_back(served: Served) -> None:
    prices = np.random.default_rng(0).lognormal(0, 20, 200).astype(np.float32)
    body = {"signature_name": "one_to_one", "inputs": [float(price) for price in prices]}
    texts = re.findall(rb"[^,\s]+", served.post(body)[1].split(b"[")[1].split(b"]")[0])
    np.testing.assert_array_equal(
        np.array([float(text) for text in texts], np.float32),
        (1 + 0.5 * prices).astype(np.float32),
    )
    assert all(b"." in text or b"e" in text for text in texts)  # never a bare whole number


def test_nan_and_infinity_stand_bare(served: Served) -> None:
    status, body = served.post(
        b'{"inputs": {"price": [NaN, Infinity, -Infinity], "city": ["a", "b", "c"]}}'
    )
    assert status == 200
    assert json.loads(body)["outputs"]["logit"] == [1.25, float("inf"), float("-inf")]
    assert b"[1.25,Infinity,-Infinity]" in re.sub(rb"\s", b"", body)
    _, body = served.post(b'{"signature_name": "one_to_one", "inputs": [NaN]}')
    assert b"[NaN]" in re.sub(rb"\s", b"", body)


def test_invalid_utf8_reaches_the_model_as_it_was_sent(served: Served) -> None:
    body = b'{"signature_name": "echo", "inputs": {"ids": [[1, 2]], "raw": ["\xff\xfe"]}}'
    status, answer = served.post(body)
    assert status == 200
    assert b'"//4="' in answer  # raw_bytes
    assert b'"\xff\xfe"' in answer  # text: passed through, and no JSON for a strict reader


def test_ten_megabytes_of_text(served: Served) -> None:
    logit = 1.0 + 0.25 * TEN_MEGABYTES
    text = "x" * TEN_MEGABYTES
    assert _json(served.post({"inputs": {"price": [0], "city": [text]}}))["outputs"]["logit"] == [
        logit
    ]
    outputs = predict(served.channel, predict_request(price=float32([0]), city=[text]))
    assert outputs["logit"].tolist() == [logit]


def test_an_empty_batch_is_a_batch(served: Served) -> None:
    outputs = predict(
        served.channel,
        predict_request(price=np.zeros(0, np.float32), city=np.array([], dtype=object)),
    )
    assert outputs["logit"].shape == (0,)
    assert _json(served.post({"inputs": {"price": [], "city": []}}))["outputs"] == {
        "logit": [],
        "probability": [],
    }


def test_output_filter(served: Served) -> None:
    request = predict_request(price=float32([2]), city=["ab"])
    request.output_filter.append("logit")
    assert {k: v.tolist() for k, v in predict(served.channel, request).items()} == {"logit": [2.5]}


def test_serialized_examples_default_what_is_absent(served: Served) -> None:
    rows = [example(price=2.0, city=b"ab"), example(city=b"abcd"), example()]
    request = predict_request(
        "serialized_examples", examples=[row.SerializeToString() for row in rows]
    )
    assert predict(served.channel, request)["logit"].tolist() == [2.5, 2.0, 1.0]


def test_classify(served: Served) -> None:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = MODEL, "classify"
    request.input.example_list.examples.extend([example(price=2.0, city=b"ab"), example()])
    response = classification_pb2.ClassificationResponse.FromString(
        call(served.channel, "Classify", request.SerializeToString())
    )
    first, second = response.result.classifications
    assert [cell.label for cell in first.classes] == ["no", "click"]
    assert [cell.score for cell in first.classes] == pytest.approx([0.0758582, 0.9241418])
    assert second.classes[1].score == pytest.approx(0.7310586)
    body = {"signature_name": "classify", "examples": [{"price": 2.0, "city": "ab"}, {}]}
    assert _json(served.post(body, PATH + ":classify"))["results"] == [
        [["no", pytest.approx(0.0758582)], ["click", pytest.approx(0.9241418)]],
        [["no", pytest.approx(0.2689414)], ["click", pytest.approx(0.7310586)]],
    ]


def test_regress_with_a_context_that_joins_every_example(served: Served) -> None:
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = MODEL, "regress"
    with_context = request.input.example_list_with_context
    with_context.context.CopyFrom(example(city=b"abcd"))
    with_context.examples.extend([example(price=2.0), example()])
    response = regression_pb2.RegressionResponse.FromString(
        call(served.channel, "Regress", request.SerializeToString())
    )
    assert [one.value for one in response.result.regressions] == [3.0, 2.0]
    body = {
        "signature_name": "regress",
        "context": {"city": {"b64": "YWJjZA=="}},
        "examples": [{"price": [2.0]}, {}],
    }
    assert _json(served.post(body, PATH + ":regress")) == {"results": [3.0, 2.0]}


def test_multi_inference_is_several_signatures_in_one_run(served: Served) -> None:
    request = inference_pb2.MultiInferenceRequest()
    for name in ("regress", "classify"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{name}")
        task.model_spec.name, task.model_spec.signature_name = MODEL, name
    request.input.example_list.examples.extend([example(price=2.0, city=b"ab"), example()])
    response = inference_pb2.MultiInferenceResponse.FromString(
        call(served.channel, "MultiInference", request.SerializeToString())
    )
    regress, classify = response.results
    assert [one.value for one in regress.regression_result.regressions] == [2.5, 1.0]
    scores = [one.classes[1].score for one in classify.classification_result.classifications]
    assert scores == pytest.approx([0.9241418, 0.7310586])
    specs = [(r.model_spec.name, r.model_spec.signature_name) for r in response.results]
    assert specs == [(MODEL, "regress"), (MODEL, "classify")]
    assert {r.model_spec.version.value for r in response.results} == {1}


def test_metadata(served: Served) -> None:
    document = _json(served.get(PATH + "/metadata"))
    assert document["model_spec"] == {"name": MODEL, "signature_name": "", "version": "1"}
    signatures = document["metadata"]["signature_def"]["signature_def"]
    price = signatures["serving_default"]["inputs"]["price"]
    assert price["dtype"] == "DT_FLOAT"
    assert price["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = MODEL
    response = get_model_metadata_pb2.GetModelMetadataResponse.FromString(
        call(served.channel, "GetModelMetadata", request.SerializeToString())
    )
    assert response.model_spec.version.value == 1
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert set(signatures) == set(found.signature_def)
    assert found.signature_def["serving_default"].inputs["city"].dtype == types_pb2.DT_STRING


def test_status(served: Served) -> None:
    available = {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert _json(served.get(PATH)) == {"model_version_status": [available]}
    assert _json(served.get(PATH + "/versions/1")) == {"model_version_status": [available]}
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = MODEL
    response = get_model_status_pb2.GetModelStatusResponse.FromString(
        call(served.channel, "GetModelStatus", request.SerializeToString(), "ModelService")
    )
    (one,) = response.model_version_status
    assert (one.version, one.state, one.status.error_code) == (1, 30, 0)


@pytest.mark.parametrize(
    "proto, values",
    [
        (tensor_of(FLOAT, [3], float_val=[2]), [2, 2, 2]),  # the last value fills up
        (tensor_of(FLOAT, [3], float_val=[2, 4]), [2, 4, 4]),
        (tensor_of(FLOAT, [2]), [0, 0]),  # no value at all is zero
        (tensor_of(FLOAT, [1], float_val=[2, 4]), [2]),  # surplus is dropped
        (tensor_of(FLOAT, [2], tensor_content=float32([2, 4]).tobytes()), [2, 4]),
    ],
)
def test_tensors_are_filled_as_cpp_fills_them(
    served: Served, proto: tensor_pb2.TensorProto, values: list[float]
) -> None:
    outputs = predict(served.channel, predict_request("one_to_one", price=proto))
    np.testing.assert_array_equal(outputs["logit"], 1 + 0.5 * float32(values))


def test_strings_in_tensor_content(served: Served) -> None:
    """All lengths as varints, then all bytes; 200 takes two bytes of varint."""
    content = b"\x01\xc8\x01\x00" + b"a" + b"b" * 200
    raw = tensor_of(types_pb2.DT_STRING, [3], tensor_content=content)
    outputs = predict(
        served.channel, predict_request("echo", ids=np.zeros((3, 2), np.int64), raw=raw)
    )
    assert outputs["raw_bytes"].tolist() == [b"a", b"b" * 200, b""]


def test_the_model_that_a_real_server_needs_can_be_published(tmp_path: Path) -> None:
    assert (publish(exported(1.0), tmp_path, 1) / "saved_model.pb").is_file()


def _json(reply: tuple[int, bytes]) -> dict:
    status, body = reply
    assert status == 200, body
    document = json.loads(body)
    assert isinstance(document, dict)
    return document
