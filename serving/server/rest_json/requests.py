"""REST requests to named arrays and Examples, by the rules of TF Serving's util/json_tensor.cc.

Predict takes rows, `{"instances": [...]}`, or columns, `{"inputs": ...}`; with one named input its
name may be left out. Classify and regress take `{"examples": [...]}`, see rest_json.examples.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2

from serving.server.rest_json.rapid_json import JsonValue, members, parse
from serving.server.rest_json.text import debug_string, format_error
from serving.server.rest_json.values import JsonColumn, is_base64_object, is_object
from serving.server.status import ServingError, invalid_argument

__all__ = [
    "PredictForm",
    "TensorInfos",
    "parse_document",
    "parse_predict",
]

TensorInfos = Mapping[str, meta_graph_pb2.TensorInfo]


class PredictForm(enum.Enum):
    """Which of the two JSON forms a request came in; the answer takes the same."""

    ROW = "instances"
    COLUMN = "inputs"


def parse_document(body: bytes) -> tuple[dict[str, JsonValue], str]:
    """The request object and its `signature_name` ("" when absent).

    Raises:
        ServingError: INVALID_ARGUMENT: not JSON, not an object, or a name that is no string.
    """
    document = parse(body)
    if not isinstance(document, dict):
        raise format_error(document, "Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise format_error(
            document, "not formatted correctly. 'signature_name' key must be a string value."
        )
    return document, name


def parse_predict(
    body: bytes, inputs_of: Callable[[str], TensorInfos]
) -> tuple[str, dict[str, np.ndarray], PredictForm]:
    """A predict request's signature name ("" = default), its arrays by input name, and its form.

    Args:
        body: the JSON text.
        inputs_of: the inputs of a signature by its name; raises ServingError for an unknown one.

    Raises:
        ServingError: in TF Serving's words.
    """
    document, signature_name = parse_document(body)
    infos = inputs_of(signature_name)
    if not infos:
        raise invalid_argument(
            f"Failed to get input map for signature: {signature_name or 'DEFAULT'}"
        )
    if "instances" not in document and "inputs" not in document:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    if "instances" in document and "inputs" in document:
        raise format_error(
            document,
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        )
    if "inputs" in document:
        return signature_name, _from_inputs(document["inputs"], infos), PredictForm.COLUMN
    instances = document["instances"]
    if not isinstance(instances, list):
        raise format_error(document, "Expecting 'instances' to be an list/array")
    if not instances:
        raise format_error(document, "No values in 'instances' array")
    return signature_name, _from_instances(instances, infos), PredictForm.ROW


def _from_instances(instances: list[JsonValue], infos: TensorInfos) -> dict[str, np.ndarray]:
    if not isinstance(instances[0], dict) and len(infos) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    by_name = is_object(instances[0])
    columns: dict[str, JsonColumn] = {}
    only = next(iter(infos))
    for index, element in enumerate(instances):
        if by_name:
            if not isinstance(element, dict) or is_base64_object(element):
                raise invalid_argument(
                    f"Expecting object but got list at item {index} of input list"
                )
            _add_named(element, index, infos, columns)
            continue
        if is_object(element):
            raise invalid_argument(
                f"Expecting value/list but got object at item {index} of input list"
            )
        try:
            columns.setdefault(only, JsonColumn(only, infos[only].dtype)).add(element)
        except ServingError as error:
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. "
                f"Error: {error.code.name}: {error.message}"
            ) from None
    return {
        name: column.array((len(instances), *(column.row_shape or ())))
        for name, column in columns.items()
    }


def _add_named(
    element: dict[str, JsonValue], index: int, infos: TensorInfos, columns: dict[str, JsonColumn]
) -> None:
    names = set()
    for sent, item in members(element):
        names.add(name := sent.partition("\0")[0])  # a C string there
        try:
            if name not in infos:
                raise invalid_argument(f"JSON object: does not have named input: {name}")
            columns.setdefault(name, JsonColumn(name, infos[name].dtype)).add(item)
        except ServingError as error:
            raise invalid_argument(
                f"Failed to process element: {index} key: {name} of 'instances' list. "
                f"Error: {error.code.name}: {error.message}"
            ) from None
    if names != infos.keys():
        raise invalid_argument(
            f"Failed to process element: {index} of 'instances' list. JSON object: "
            f"{debug_string(element)} keys must be equal to: {','.join(sorted(infos))}"
        )


def _from_inputs(value: JsonValue, infos: TensorInfos) -> dict[str, np.ndarray]:
    if not isinstance(value, dict) or is_base64_object(value):
        if len(infos) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        name, info = next(iter(infos.items()))
        return {name: _whole_array(name, value, info)}
    arrays: dict[str, np.ndarray] = {}
    for name, info in infos.items():
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _whole_array(name, value[name], info)
    return arrays


def _whole_array(name: str, value: JsonValue, info: meta_graph_pb2.TensorInfo) -> np.ndarray:
    column = JsonColumn(name, info.dtype)
    column.add(value)
    return column.array(column.row_shape or ())
