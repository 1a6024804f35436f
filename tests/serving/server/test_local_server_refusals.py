"""Requests that TF Serving refuses: each with its status and its words, and the server lives.

Runs against a real TF Serving too, see test_local_server_contract.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
)

from tests.serving.server_fixtures import (
    MODEL,
    PATH,
    Served,
    call,
    contract_server,
    error_of,
    predict,
    predict_request,
    rest,
    tensor_of,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with contract_server(tmp_path_factory.mktemp("models")) as running:
        yield running


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
    **{
        f"no base64: {text!r}": (
            {"inputs": {"price": [1], "city": [{"b64": text}]}},
            "Unable to base64 decode",
        )
        for text in ("!", "Y", "YQ=", "YWI==", "YWJj=", "=", "YQ=\u00a0=")
    },
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


# docs/tf_serving.md: NumPy's arrays have 64 dimensions at most and no size beyond 2^63 / 0; what
# TF Serving answers there, or dies of, the development server refuses.
apart = pytest.mark.skipif("TF_SERVING_ADDRESS" in os.environ, reason="apart from TF Serving")


@apart
@pytest.mark.parametrize("depth", [70, 300, 20_000, 490_000])
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
        "Expects arg[1] to be float but int32 is provided",
    ),
    "two wrong dtypes": (  # the first by the graph's names, whatever the order sent
        predict_request(price=[1], city=[2.0]),
        INVALID,
        "Expects arg[0] to be string but float is provided",
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
        predict_request(price=tensor_of(FLOAT, [2], tensor_content=b"\0\0\0\0\0"), city=["a"]),
        INVALID,
        "tensor parsing error: price",
    ),
    "negative size": (
        predict_request(price=tensor_of(FLOAT, [-1], float_val=[1]), city=["a"]),
        INVALID,
        "tensor parsing error: price",
    ),
    "unknown rank": (
        predict_request(
            price=tensor_pb2.TensorProto(dtype=FLOAT, tensor_shape={"unknown_rank": True}),
            city=["a"],
        ),
        None,  # TensorFlow's shapes do not look at it: a scalar
        "",
    ),
    "more than memory": (
        predict_request(price=tensor_of(FLOAT, [2**40], float_val=[1]), city=["a"]),
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


@apart
def test_a_shape_that_numpy_cannot_hold(served: Served) -> None:
    request = predict_request(price=tensor_of(FLOAT, [0, 2**40, 2**40]), city=["a"])
    with pytest.raises(grpc.RpcError) as caught:
        call(served.channel, "Predict", request.SerializeToString())
    assert (caught.value.code(), caught.value.details()) == (INVALID, "tensor parsing error: price")


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


CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
UNKNOWN_CODE = grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "tasks, code, message",
    [
        ([], INVALID, "ModelSpec has no name specified."),
        ([("nope", "classify", CLASSIFY)], None, "Servable not found for request: Latest(nope)"),
        (
            [(MODEL, "classify", CLASSIFY), ("other", "regress", REGRESS)],
            INVALID,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [(MODEL, "classify", CLASSIFY), ("", "regress", REGRESS)],
            INVALID,
            "Found ModelSpec with an empty model name.",
        ),
        (
            [(MODEL, "classify", CLASSIFY)] * 2,
            INVALID,
            "Duplicate evaluation of signature: classify",
        ),
        (
            [(MODEL, "nope", CLASSIFY)],
            INVALID,
            "Requested signature not found in model graph: nope",
        ),
        ([(MODEL, "", CLASSIFY)], INVALID, "Expected one input Tensor."),
        ([(MODEL, "classify", REGRESS)], INVALID, "Expected one output Tensor."),
        (
            [(MODEL, "classify", "tensorflow/serving/predict")],
            UNKNOWN_CODE,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        ([(MODEL, "classify", CLASSIFY)], INVALID, "Input is empty."),
    ],
)
def test_bad_multi_inference(
    served: Served, tasks: list[tuple[str, str, str]], code: grpc.StatusCode | None, message: str
) -> None:
    request = inference_pb2.MultiInferenceRequest()
    for name, signature_name, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = name, signature_name
    with pytest.raises(grpc.RpcError) as caught:
        call(served.channel, "MultiInference", request.SerializeToString())
    assert caught.value.code() is (code or grpc.StatusCode.NOT_FOUND)
    assert caught.value.details() == message


def _assert_alive(served: Served) -> None:
    request = predict_request(price=tf.constant([2.0]).numpy(), city=["ab"])
    assert predict(served.channel, request)["logit"].tolist() == [2.5]


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
