"""REST classify and regress requests: JSON objects to tf.Example, as TF Serving's json_tensor.cc.

`{"examples": [{feature: value or list}], "context": {...}}`: the JSON type decides the list that a
feature goes to. A whole number is an int64 and `1.0` a float; text and `{"b64": ...}` are bytes.
"""

from __future__ import annotations

import contextlib

import tensorflow as tf
from tensorflow_serving.apis import input_pb2

from serving.server.rest_json.rapid_json import JsonValue, members, to_bytes
from serving.server.rest_json.requests import parse_document
from serving.server.rest_json.text import format_error, json_type
from serving.server.rest_json.values import decode_base64, is_base64_object
from serving.server.status import ServingError, invalid_argument

__all__ = ["parse_examples"]

_KIND_NAMES = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def parse_examples(body: bytes) -> tuple[str, input_pb2.Input]:
    """The signature name ("" = default) and the Examples of a classify or regress request.

    Raises:
        ServingError: in TF Serving's words.
    """
    document, signature_name = parse_document(body)
    result = input_pb2.Input()
    has_context = "context" in document
    if has_context:
        context = result.example_list_with_context.context
        context.SetInParent()  # an empty context is still a context
        _fill_example(document["context"], context)
    if "examples" not in document:
        # TF Serving says "classify" here whichever of the two was called.
        raise format_error(
            document, "When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise format_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise format_error(document, "'examples' value is an empty array")
    target = result.example_list_with_context if has_context else result.example_list
    for example in examples:
        _fill_example(example, target.examples.add())
    return signature_name, result


def _fill_example(value: JsonValue, example: tf.train.Example) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {json_type(value)}")
    for sent, content in members(value):
        name = sent.partition("\0")[0]  # a C string there
        feature = tf.train.Feature()
        for element in content if isinstance(content, list) else [content]:
            _add_value(element, name, feature)
        # A proto's text must be UTF-8 here; a name that is none is no feature of any model.
        with contextlib.suppress(UnicodeEncodeError, ValueError):
            example.features.feature[name].CopyFrom(feature)  # of a repeated name the last counts


def _add_value(value: JsonValue, name: str, feature: tf.train.Feature) -> None:
    if value is None or isinstance(value, list):
        raise _unexpected_type(name, value)
    if isinstance(value, bool):
        _values(feature, "int64_list", name).append(int(value))
    elif isinstance(value, int):
        if value >= 2**63:
            raise invalid_argument(
                f"Feature: {name} has uint64_t element. Only int64_t is supported."
            )
        _values(feature, "int64_list", name).append(value)
    elif isinstance(value, float):
        _values(feature, "float_list", name).append(value)
    elif isinstance(value, str):
        _values(feature, "bytes_list", name).append(to_bytes(value))
    else:
        if not is_base64_object(value):
            raise _unexpected_type(name, value)
        _values(feature, "bytes_list", name).append(decode_base64(value))


def _values(feature: tf.train.Feature, kind: str, name: str):  # type: ignore[no-untyped-def]
    """The feature's list of `kind`; its values must all be of one kind."""
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        # TF Serving names the type that the feature already has, not the one it came upon.
        raise invalid_argument(
            f"Unexpected element type in feature: {name} expecting type: {_KIND_NAMES[present]}"
        )
    return getattr(feature, kind).value


def _unexpected_type(name: str, value: JsonValue) -> ServingError:
    return invalid_argument(
        f"Feature: {name} has element with unexpected JSON type: {json_type(value)}"
    )
