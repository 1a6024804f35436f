"""What makes a signature a classification or a regression, and their results.

By TF Serving's servables/tensorflow/classifier.cc and regressor.cc. Both take one input, `inputs`:
serialized tf.Examples, [B]. A classification answers `classes` (string [B, C]) and/or `scores`
(float32 [B, C]); a regression answers `outputs` (float32 [B] or [B, 1]).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.server.status import ServingError, invalid_argument

__all__ = [
    "classification_outputs",
    "classification_result",
    "regression_output",
    "regression_result",
    "serialized_examples",
]


def serialized_examples(request_input: input_pb2.Input) -> np.ndarray:
    """The Examples of a request, serialized: [B] strings.

    A context is prepended as it is: concatenated protos merge, so its features join each row's.

    Raises:
        ServingError: INVALID_ARGUMENT: no Example.
    """
    kind = request_input.WhichOneof("kind")
    context = b""
    if kind == "example_list":
        examples = request_input.example_list.examples
    elif kind == "example_list_with_context":
        examples = request_input.example_list_with_context.examples
        context = request_input.example_list_with_context.context.SerializeToString()
    else:
        examples = []
    if not examples:
        raise invalid_argument("Input is empty.")
    rows = np.empty(len(examples), dtype=object)
    rows[:] = [context + example.SerializeToString() for example in examples]
    return rows


def classification_outputs(
    signature: meta_graph_pb2.SignatureDef,
) -> tuple[str, dict[str, str]]:
    """The input tensor's name, and the output tensors' names by `classes` and `scores`.

    Raises:
        ServingError: INVALID_ARGUMENT: not a classification signature.
    """
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(
            f"Expected one or two output Tensors, found {len(signature.outputs)}"
        )
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No classification inputs found in SignatureDef: {signature}")
    outputs = {
        alias: signature.outputs[alias].name
        for alias in ("classes", "scores")
        if alias in signature.outputs
    }
    if not outputs:
        raise invalid_argument(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {signature}'
        )
    return signature.inputs["inputs"].name, outputs


def classification_result(
    outputs: Mapping[str, np.ndarray],
    num_examples: int,
    result: classification_pb2.ClassificationResult,
) -> None:
    """Fills `result` from the arrays `classes` and `scores`, one or both, each [B, C].

    Raises:
        ServingError: INVALID_ARGUMENT: the model's outputs have another shape or dtype.
    """
    wanted = {"classes": ("O", "DT_STRING"), "scores": ("f", "DT_FLOAT")}
    for alias, array in outputs.items():
        if array.ndim != 2:
            raise invalid_argument(
                f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}"
            )
        kind, name = wanted[alias]
        if array.dtype.kind != kind or array.dtype == np.float64:
            raise _wrong_dtype(f"Expected {alias} Tensor of {name}. Got: ", array)
        if len(array) != num_examples:
            raise invalid_argument(
                f"Expected {alias} output batch size of {num_examples}. Got: {len(array)}"
            )
    widths = [array.shape[1] for array in outputs.values()]
    if len(set(widths)) > 1:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[1]}"
        )
    for row in range(num_examples):
        one = result.classifications.add()
        for column in range(widths[0]):
            cell = one.classes.add()
            if "classes" in outputs:
                # A proto string must be valid UTF-8; C++ would store the bytes and fail to send.
                cell.label = outputs["classes"][row, column].decode("utf-8", "replace")
            if "scores" in outputs:
                cell.score = outputs["scores"][row, column]


def regression_output(signature: meta_graph_pb2.SignatureDef) -> tuple[str, str]:
    """The names of the input tensor and of the output tensor.

    Raises:
        ServingError: INVALID_ARGUMENT: not a regression signature.
    """
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No regression inputs found in SignatureDef: {signature}")
    if "outputs" not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature}")
    return signature.inputs["inputs"].name, signature.outputs["outputs"].name


def regression_result(
    array: np.ndarray, num_examples: int, result: regression_pb2.RegressionResult
) -> None:
    """Fills `result` from `array`, [B] or [B, 1].

    Raises:
        ServingError: INVALID_ARGUMENT: the model's output has another shape or dtype.
    """
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shape(array)}"
        )
    if len(array) != num_examples:
        raise invalid_argument(
            f"Input batch size did not match output batch size: {num_examples} vs. {len(array)}"
        )
    if array.dtype != np.float32:
        raise _wrong_dtype("Expected output Tensor of DT_FLOAT.  Got: ", array)
    for value in array.ravel().tolist():
        result.regressions.add().value = value


def _wrong_dtype(prefix: str, array: np.ndarray) -> ServingError:
    kind = tf.string if array.dtype.kind == "O" else tf.as_dtype(array.dtype)
    return invalid_argument(f"{prefix}DT_{kind.name.upper()}")


def _shape(array: np.ndarray) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"
