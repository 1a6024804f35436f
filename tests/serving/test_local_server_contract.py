"""The contract of TF Serving's wire, on the embedded server or on a real TF Serving.

For the real one: publish the model with `python -m tests.serving.server_fixtures MODELS_DIR`, serve
it under its name, and set TF_SERVING_ADDRESS=HOST:GRPC_PORT,HOST:REST_PORT. Messages are compared
whole but for the names of graph nodes, which the TensorFlow that runs them chooses.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.local_server import LocalServer
from tests.serving.server_fixtures import (
    MODEL,
    call,
    error_of,
    example,
    expected_logits,
    exported,
    float32,
    predict,
    predict_request,
    publish,
    rest,
)

PATH = f"/v1/models/{MODEL}"
TEN_MEGABYTES = 10_000_000


@dataclass
class Served:
    """A running server that has the model of server_fixtures, version 1, under its name."""

    rest_address: str
    channel: grpc.Channel

    def post(self, body: object, path: str = PATH + ":predict") -> tuple[int, bytes]:
        return rest(self.rest_address, "POST", path, body)

    def get(self, path: str) -> tuple[int, bytes]:
        return rest(self.rest_address, "GET", path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    real = os.environ.get("TF_SERVING_ADDRESS")
    if real:
        grpc_address, rest_address = real.split(",")
        with grpc.insecure_channel(grpc_address, options=options) as channel:
            yield Served(rest_address, channel)
        return
    models_dir = tmp_path_factory.mktemp("models")
    publish(exported(1.0), models_dir, 1)
    with (
        LocalServer(models_dir) as server,
        grpc.insecure_channel(server.grpc_address, options=options) as channel,
    ):
        yield Served(server.rest_address, channel)


# -- answers ---------------------------------------------------------------------------------------


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


def test_numbers_are_written_so_that_float32_comes_back(served: Served) -> None:
    prices = np.random.default_rng(0).lognormal(0, 20, 200).astype(np.float32)
    body = {"signature_name": "one_to_one", "inputs": [float(price) for price in prices]}
    texts = re.findall(rb"[^\[\], ]+", served.post(body)[1].split(b"[")[1].split(b"]")[0])
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
    assert b"[1.25, Infinity, -Infinity]" in body
    _, body = served.post(b'{"signature_name": "one_to_one", "inputs": [NaN]}')
    assert b"[NaN]" in body


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


# -- refusals --------------------------------------------------------------------------------------

ROW = {"price": 1.0, "city": "a"}
ROW_TEXT = '{\n    "price": 1.0,\n    "city": "a"\n}'
FAILED = "Failed to process element: 0 key: {} of 'instances' list. Error: INVALID_ARGUMENT: {}"
NOT_SCALAR = '{\n    "signature_name": 3,\n    "inputs": 1\n} not formatted correctly.'

BAD_REST = {
    "no body": (b"", "JSON Parse error: The document is empty"),
    "half a document": (
        b'{"inputs": ',
        "JSON Parse error: Invalid value. at offset: 11",
    ),
    "no object": ([1, 2], "JSON Value: [1, 2] Is not object"),
    "neither key": ({}, "Missing 'inputs' or 'instances' key"),
    "both keys": (
        {"inputs": 1, "instances": 2},
        'JSON Value: {\n    "inputs": 1,\n    "instances": 2\n} Not formatted correctly expecting '
        "only one of 'inputs' or 'instances' keys to exist ",
    ),
    "signature is no text": (
        {"signature_name": 3, "inputs": 1},
        f"JSON Value: {NOT_SCALAR} 'signature_name' key must be a string value.",
    ),
    "unknown signature": (
        {"signature_name": "nope", "inputs": 1},
        'Serving signature name: "nope" not found in signature def',
    ),
    "instances is no list": (
        {"instances": 5},
        "JSON Value: {\n    \"instances\": 5\n} Expecting 'instances' to be an list/array",
    ),
    "no instance": (
        {"instances": []},
        "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
    ),
    "rows without names": (
        {"instances": [1, 2]},
        "instances is a plain list, but expecting list of objects as multiple input tensors "
        "required as per tensorinfo_map",
    ),
    "a row that is no object": (
        {"instances": [ROW, [1]]},
        "Expecting object but got list at item 1 of input list",
    ),
    "an object among values": (
        {"signature_name": "one_to_one", "instances": [1, {"price": 2}]},
        "Expecting value/list but got object at item 1 of input list",
    ),
    "unknown key in a row": (
        {"instances": [{**ROW, "x": 1}]},
        FAILED.format("x", "JSON object: does not have named input: x"),
    ),
    "missing key in a row": (
        {"instances": [{"price": 1.0}]},
        "Failed to process element: 0 of 'instances' list. JSON object: "
        '{\n    "price": 1.0\n} keys must be equal to: city,price',
    ),
    "text for a number in a row": (
        {"instances": [{"price": "1", "city": "a"}]},
        FAILED.format("price", 'JSON Value: "1" Type: String is not of expected type: float'),
    ),
    "null for text": (
        {"inputs": {"price": [1], "city": [None]}},
        "JSON Value: null Type: Null is not of expected type: string",
    ),
    "a number for text": (
        {"inputs": {"price": [1], "city": [1.5]}},
        "JSON Value: 1.5 Type: Number is not of expected type: string",
    ),
    "true for a number": (
        {"inputs": {"price": [True], "city": ["a"]}},
        "JSON Value: true Type: True is not of expected type: float",
    ),
    "a fraction for a whole number": (
        {"signature_name": "echo", "inputs": {"ids": [[1.0, 2]], "raw": ["a"]}},
        "JSON Value: 1.0 Type: Number is not of expected type: int64",
    ),
    "a whole number over 64 bits": (
        {"signature_name": "echo", "inputs": {"ids": [[2**63, 2]], "raw": ["a"]}},
        "JSON Value: 9223372036854775808 Type: Number is not of expected type: int64",
    ),
    "an object for a number": (
        {"inputs": {"price": [{"b64": "YQ=="}], "city": ["a"]}},
        'JSON Value: {\n    "b64": "YQ=="\n} Type: Object is not of expected type: float',
    ),
    "no base64": (
        {"inputs": {"price": [1], "city": [{"b64": "!"}]}},
        "Unable to base64 decode",
    ),
    "an object that is no bytes": (
        {"inputs": {"price": [1], "city": [{"b65": "YQ=="}]}},
        'JSON Value: {\n    "b65": "YQ=="\n} not formatted correctly for base64 data',
    ),
    "inputs without names": (
        {"inputs": [1, 2]},
        "inputs is a plain value/list, but expecting an object as multiple input tensors "
        "required as per tensorinfo_map",
    ),
    "missing key in columns": (
        {"inputs": {"price": [1]}},
        "Missing named input: city in 'inputs' object.",
    ),
    "ragged list": (
        {"inputs": {"price": [[1, 2], [3]], "city": ["a"]}},
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    "too deep": (
        {"inputs": {"price": [1, [2]], "city": ["a"]}},
        "Encountered list at unexpected level: 1 expected < 1",
    ),
    "too shallow": (
        {"inputs": {"price": [[1], 2], "city": ["a"]}},
        "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    "rows of different sizes": (
        {"signature_name": "one_to_one", "instances": [[1, 2], [3]]},
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        "Expecting tensor size: 2 but got: 1",
    ),
    "rows of different shapes": (
        {"signature_name": "one_to_one", "instances": [[[1, 2]], [[1], [2]]]},
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        "Expecting shape [1,2] but got: [2,1]",
    ),
    "columns of different lengths": (
        {"inputs": {"price": [1, 2, 3], "city": ["a", "b"]}},
        "Incompatible shapes: [3] vs. [2]",
    ),
    "wrong shape": (
        {"inputs": {"price": [[1, 2, 3]], "city": ["a", "b"]}},
        "Incompatible shapes: [1,3] vs. [2]",
    ),
    "what the model refuses": (
        {"signature_name": "fails_on_negative", "inputs": [-1]},
        "assertion failed: [price.",
    ),
    "no tf.Example": (
        {"signature_name": "serialized_examples", "inputs": ["garbage"]},
        "Could not parse example input, value: 'garbage'",
    ),
}
# The session adds the names of graph nodes to these.
FROM_THE_SESSION = {
    "columns of different lengths",
    "wrong shape",
    "what the model refuses",
    "no tf.Example",
}


@pytest.mark.parametrize("case", BAD_REST)
def test_bad_predict_over_rest(served: Served, case: str) -> None:
    body, message = BAD_REST[case]
    status, answer = served.post(body)
    assert status == 400
    error = error_of(answer)
    assert error.startswith(message) if case in FROM_THE_SESSION else error == message
    _assert_alive(served)


@pytest.mark.parametrize("depth", [70, 300, 100_000])
def test_nesting_without_end(served: Served, depth: int) -> None:
    body = b'{"signature_name": "one_to_one", "inputs": ' + b"[" * depth + b"]" * depth + b"}"
    status, answer = served.post(body)
    assert (status, "tensor parsing error" in error_of(answer)) == (400, True)


def test_columns_may_hold_more_than_the_inputs(served: Served) -> None:
    """TF Serving looks for the inputs only; rows, by contrast, must have exactly these keys."""
    assert served.post({"inputs": {"price": [1], "city": ["a"], "label": [0]}})[0] == 200


def test_long_values_are_quoted_in_part(served: Served) -> None:
    _, answer = served.post([[7] * 1000])
    quoted = error_of(answer).removeprefix("JSON Value: ").removesuffix(" Is not object")
    assert quoted == "[[" + ", ".join(["7"] * 86)  # 256 bytes reached, not one token more


@pytest.mark.parametrize(
    "method, path, status, message",
    [
        ("GET", "/v1/models/nope", 404, "Could not find any versions of model nope"),
        ("GET", PATH + "/versions/7", 404, f"Could not find version 7 of model {MODEL}"),
        ("GET", "/v1/models/nope/metadata", 404, "Servable not found for request: Latest(nope)"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", PATH + ":predict", 400, f"Malformed request: GET {PATH}:predict"),
        ("GET", "/v1/other", 400, "Malformed request: GET /v1/other"),
        ("POST", PATH, 400, f"Malformed request: POST {PATH}"),
        ("POST", PATH + ":explain", 400, f"Malformed request: POST {PATH}:explain"),
        ("POST", PATH + ":predict?x=1", 400, f"Malformed request: POST {PATH}:predict?x=1"),
        ("PUT", PATH + ":predict", 400, f"Malformed request: PUT {PATH}:predict"),
        ("POST", "/v1/models/a%20b:predict", 404, "Servable not found for request: Latest(a b)"),
        (
            "POST",
            PATH + "/versions/7:predict",
            404,
            f"Servable not found for request: Specific({MODEL}, 7)",
        ),
        (
            "POST",
            PATH + "/labels/canary:predict",
            400,
            "Unrecognized servable version label: canary",
        ),
    ],
)
def test_bad_paths(served: Served, method: str, path: str, status: int, message: str) -> None:
    code, answer = rest(
        served.rest_address, method, path, {"inputs": 1} if method == "POST" else None
    )
    assert (code, error_of(answer)) == (status, message)


def test_paths_outside_the_api_are_not_found(served: Served) -> None:
    status, answer = served.get("/elsewhere")
    assert status == 404
    assert b"404 Not Found" in answer


@pytest.mark.parametrize(
    "method, body, message",
    [
        ("classify", {"examples": []}, "'examples' value is an empty array"),
        ("classify", {"examples": 1}, "Expecting 'examples' value to be an list/array"),
        ("regress", {}, "When method is classify, key 'examples' is expected and was not found"),
        ("classify", {"examples": [1]}, "Example must be JSON object but got JSON Number"),
        (
            "classify",
            {"examples": [{"price": None}]},
            "Feature: price has element with unexpected JSON type: Null",
        ),
        (
            "classify",
            {"examples": [{"price": [[1.0]]}]},
            "Feature: price has element with unexpected JSON type: Array",
        ),
        (
            "classify",
            {"examples": [{"price": [1.0, "a"]}]},
            "Unexpected element type in feature: price expecting type: float",
        ),
        (
            "classify",
            {"examples": [{"price": [2**63]}]},
            "Feature: price has uint64_t element. Only int64_t is supported.",
        ),
        ("regress", {"examples": [{"price": [1]}]}, "Data types don't match."),
        (
            "classify",
            {"signature_name": "nope", "examples": [{}]},
            "No signature was found with the name: nope",
        ),
        (
            "classify",
            {"signature_name": "serving_default", "examples": [{}]},
            "Expected one input Tensor.",
        ),
        (
            "regress",
            {"signature_name": "classify", "examples": [{}]},
            "Expected one output Tensor.",
        ),
        (
            "classify",
            {"signature_name": "one_to_one", "examples": [{}]},
            "No classification inputs found in SignatureDef: ",
        ),
    ],
)
def test_bad_examples_over_rest(served: Served, method: str, body: dict, message: str) -> None:
    status, answer = served.post({"signature_name": method, **body}, f"{PATH}:{method}")
    assert status == 400
    assert message in error_of(answer)


def _tensor(dtype: int, shape: list[int], **fields: object) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


FLOAT = types_pb2.DT_FLOAT
INVALID, PRECONDITION = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION

BAD_GRPC = {
    "no model": (predict_pb2.PredictRequest(), INVALID, "Missing ModelSpec"),
    "no name": (predict_request(name=""), INVALID, "ModelSpec has no name specified."),
    "unknown model": (
        predict_request(name="nope"),
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Latest(nope)",
    ),
    "unknown version": (
        predict_request(version=7),
        grpc.StatusCode.NOT_FOUND,
        f"Servable not found for request: Specific({MODEL}, 7)",
    ),
    "unknown signature": (
        predict_request("nope"),
        PRECONDITION,
        'Serving signature key "nope" not found.',
    ),
    "missing key": (
        predict_request(price=[1.0]),
        INVALID,
        "input size does not match signature: 1!=2 len({price}) != len({city,price}). "
        "Sent extra: {}. Missing but required: {city}.",
    ),
    "one key too many": (
        predict_request(price=[1.0], city=["a"], x=[1]),
        INVALID,
        "input size does not match signature: 3!=2 len({city,price,x}) != len({city,price}). "
        "Sent extra: {x}. Missing but required: {}.",
    ),
    "unknown key": (
        predict_request(price=[1.0], town=["a"]),
        INVALID,
        "Signature input alias: city(feed name: serving_default_city:0) not found in request and "
        "no default value provided. Inputs expected to be in the request {price,town}, or default "
        "input alias set: ",
    ),
    "wrong dtype": (
        predict_request(price=[1], city=["a"]),
        INVALID,
        "Type mismatch: actual int32 vs. expect float",
    ),
    "columns of different lengths": (
        predict_request(price=[1.0, 2.0, 3.0], city=["a", "b"]),
        INVALID,
        "Incompatible shapes: [3] vs. [2]",
    ),
    "wrong shape": (
        predict_request("echo", ids=np.zeros(2, np.int64), raw=["a", "b"]),
        None,  # nothing in this graph looks at the shape: TF Serving does not either
        "",
    ),
    "content that does not fit the shape": (
        predict_request(price=_tensor(FLOAT, [2], tensor_content=b"\0\0\0\0\0"), city=["a"]),
        INVALID,
        "tensor parsing error: price",
    ),
    "negative size": (
        predict_request(price=_tensor(FLOAT, [-1], float_val=[1]), city=["a"]),
        INVALID,
        "tensor parsing error: price",
    ),
    "unknown rank": (
        predict_request(
            price=tensor_pb2.TensorProto(dtype=FLOAT, tensor_shape={"unknown_rank": True}),
            city=["a"],
        ),
        INVALID,
        "tensor parsing error: price",
    ),
    "more than memory": (
        predict_request(price=_tensor(FLOAT, [2**40], float_val=[1]), city=["a"]),
        INVALID,
        "tensor parsing error: price",
    ),
    "no element, yet too large": (
        predict_request(price=_tensor(FLOAT, [0, 2**40, 2**40]), city=["a"]),
        INVALID,
        "tensor parsing error: price",
    ),
    "no dtype": (
        predict_request(price=tensor_pb2.TensorProto(), city=["a"]),
        INVALID,
        "tensor parsing error: price",
    ),
    "unknown output": (
        predict_pb2.PredictRequest(output_filter=["nope"]),
        INVALID,
        "output tensor alias not found in signature: nope Outputs expected to be in the set "
        "{logit,probability}.",
    ),
    "an output twice": (
        predict_pb2.PredictRequest(output_filter=["logit", "logit"]),
        INVALID,
        "duplicate output tensor alias: logit",
    ),
}
for _case in ("unknown output", "an output twice"):
    BAD_GRPC[_case][0].MergeFrom(predict_request(price=[1.0], city=["a"]))


@pytest.mark.parametrize("case", BAD_GRPC)
def test_bad_predict_over_grpc(served: Served, case: str) -> None:
    request, code, message = BAD_GRPC[case]
    if code is None:
        predict(served.channel, request)
        return
    with pytest.raises(grpc.RpcError) as caught:
        call(served.channel, "Predict", request.SerializeToString())
    assert caught.value.code() is code
    details = caught.value.details()
    assert details.split("\n\t")[0] == message
    _assert_alive(served)


def test_a_malformed_proto(served: Served) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(served.channel, "Predict", b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    _assert_alive(served)


@pytest.mark.parametrize(
    "proto, values",
    [
        (_tensor(FLOAT, [3], float_val=[2]), [2, 2, 2]),  # the last value fills up
        (_tensor(FLOAT, [3], float_val=[2, 4]), [2, 4, 4]),
        (_tensor(FLOAT, [2]), [0, 0]),  # no value at all is zero
        (_tensor(FLOAT, [1], float_val=[2, 4]), [2]),  # surplus is dropped
        (_tensor(FLOAT, [2], tensor_content=float32([2, 4]).tobytes()), [2, 4]),
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
    raw = _tensor(types_pb2.DT_STRING, [3], tensor_content=content)
    outputs = predict(
        served.channel, predict_request("echo", ids=np.zeros((3, 2), np.int64), raw=raw)
    )
    assert outputs["raw_bytes"].tolist() == [b"a", b"b" * 200, b""]


def test_bad_metadata_and_status_over_grpc(served: Served) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = MODEL
    for fields, message in (
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["graph"], "Metadata field graph is not supported"),
    ):
        request.metadata_field[:] = fields
        with pytest.raises(grpc.RpcError) as caught:
            call(served.channel, "GetModelMetadata", request.SerializeToString())
        assert caught.value.details() == message
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "nope"
    with pytest.raises(grpc.RpcError) as caught:
        call(served.channel, "GetModelStatus", status.SerializeToString(), "ModelService")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_long_grpc_messages_are_cut(served: Served) -> None:
    request = predict_request()
    for index in range(40):
        request.inputs[f"{index:03d}" + "x" * 50].float_val.append(1.0)
    with pytest.raises(grpc.RpcError) as caught:
        call(served.channel, "Predict", request.SerializeToString())
    details = caught.value.details()
    assert len(details) == 1024 + len("...TRUNCATED")
    assert details.endswith("...TRUNCATED")


def test_empty_input_of_a_classification(served: Served) -> None:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = MODEL, "classify"
    with pytest.raises(grpc.RpcError) as caught:
        call(served.channel, "Classify", request.SerializeToString())
    assert caught.value.details() == "Input is empty."


def _json(reply: tuple[int, bytes]) -> dict:
    status, body = reply
    assert status == 200, body
    document = json.loads(body)
    assert isinstance(document, dict)
    return document


def _assert_alive(served: Served) -> None:
    request = predict_request(price=tf.constant([2.0]).numpy(), city=["ab"])
    assert predict(served.channel, request)["logit"].tolist() == [2.5]


def test_the_model_that_a_real_server_needs_can_be_published(tmp_path: Path) -> None:
    assert (publish(exported(1.0), tmp_path, 1) / "saved_model.pb").is_file()


@pytest.mark.parametrize("method", ["predict", "classify", "regress"])
def test_names_that_are_no_utf8_are_unknown_names(served: Served, method: str) -> None:
    body = b'{"signature_name": "\xff", "examples": [{"\xff": 1.0}], "inputs": {"\xff": 1}}'
    status, answer = served.post(body, f"{PATH}:{method}")
    assert status == 400
    assert b"\xff" in answer
    status, answer = served.post(b'{"instances": [{"\xff": 1}]}')
    assert (status, b"does not have named input: \xff" in answer) == (400, True)


def test_a_message_that_quotes_bytes(served: Served) -> None:
    request = predict_request("serialized_examples", examples=[b"\x80"])
    with pytest.raises(grpc.RpcError) as caught:
        call(served.channel, "Predict", request.SerializeToString())
    assert caught.value.code() is INVALID
    assert caught.value.details().startswith("Could not parse example input, value: '")
    body = b'{"signature_name": "serialized_examples", "inputs": ["\x80"]}'
    status, answer = served.post(body)
    assert (status, b"value: '\x80'" in answer) == (400, True)
