"""One loaded model version: its session, and TF Serving's checks and words around it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.loader.model_session import ModelSession
from serving.server.classify_regress import (
    classification_outputs,
    classification_result,
    regression_output,
    regression_result,
    serialized_examples,
)
from serving.server.status import (
    failed_precondition,
    from_tensorflow,
    invalid_argument,
    unimplemented,
)
from serving.wire.tensors import dtype_name, parse_tensor, tensor_enum, tensor_proto

__all__ = ["DEFAULT_SIGNATURE", "Servable"]

DEFAULT_SIGNATURE = "serving_default"
_CLASSIFY, _REGRESS = tf.saved_model.CLASSIFY_METHOD_NAME, tf.saved_model.REGRESS_METHOD_NAME


class Servable:
    """A version of a model, loaded; thread-safe; closed once nobody holds it any more.

    Args:
        name: the model's name.
        version: the version's number.
        path: the SavedModel's directory.

    Attributes:
        signatures: the SignatureDefs by name.
        inputs: by signature name, its inputs by name.

    Raises:
        tf.errors.OpError, OSError, ValueError, RuntimeError: the SavedModel does not load.
    """

    def __init__(self, name: str, version: int, path: str) -> None:
        self.name, self.version, self.path = name, version, path
        self._session = ModelSession(path)
        self.signatures = self._session.signatures
        # Plain dicts, as the signatures are: callers send names that are no UTF-8. In order, for
        # messages that name one of several; TF Serving's order is that of a hash map.
        self.inputs = {
            name: dict(sorted(one.inputs.items())) for name, one in self.signatures.items()
        }
        self._dtypes = {i.name: i.dtype for one in self.inputs.values() for i in one.values()}
        self._lock = threading.Lock()
        self._num_users, self._retired = 0, False

    def acquire(self) -> None:
        """Counts a user in; the session stays open until `release`.

        Raises:
            RuntimeError: the servable is retired.
        """
        with self._lock:
            if self._retired:
                raise RuntimeError("a retired servable must not be used")
            self._num_users += 1

    def release(self) -> None:
        """Counts a user out."""
        with self._lock:
            self._num_users -= 1
            close = self._retired and self._num_users == 0
        if close:
            self._session.close()

    def retire(self) -> None:
        """Frees the session now, or as soon as the last request that runs in it has ended."""
        with self._lock:
            close = not self._retired and self._num_users == 0
            self._retired = True
        if close:
            self._session.close()

    # -- running -----------------------------------------------------------------------------------

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Runs the graph; `feeds` and `fetches` by tensor name.

        Raises:
            ServingError: what the session said, its code and its message unchanged.
        """
        # The session's callables word a wrong dtype in their own way, and TF Serving calls Run.
        for place, name in enumerate(sorted(feeds)):
            expected, given = self._dtypes[name], tensor_enum(feeds[name])
            if given != expected:
                raise invalid_argument(
                    f"Expects arg[{place}] to be {dtype_name(expected)} but {dtype_name(given)} "
                    "is provided"
                )
        try:
            return self._session.run(feeds, fetches)
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from None
        except UnicodeDecodeError as error:
            # The session's message quotes bytes of the request that are no text, and the binding
            # loses the code on its way; the ops that quote their input call it invalid.
            raise invalid_argument(error.object.decode("utf-8", "surrogateescape")) from None

    def predict_arrays(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        output_filter: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Predict on arrays by input name; all outputs by name unless filtered.

        Raises:
            ServingError: the signature, the set of inputs or the values are wrong.
        """
        signature = self._predict_signature(signature_name, list(inputs))
        return self._run_signature(signature, self._feeds(signature, inputs), output_filter)

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """The Predict call, as predict_util.cc answers it.

        Raises:
            ServingError: as predict_arrays; also a tensor that does not parse.
        """
        spec = request.model_spec
        signature = self._predict_signature(spec.signature_name, list(request.inputs))
        outputs = self._run_signature(
            signature, self._feeds(signature, request.inputs), request.output_filter
        )
        response = predict_pb2.PredictResponse()
        response.model_spec.CopyFrom(self._spec(spec))
        for name, array in outputs.items():
            response.outputs[name].CopyFrom(tensor_proto(array))
        return response

    def classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """The Classify call, as classifier.cc answers it.

        Raises:
            ServingError: the signature is not a classification, or the input is empty or bad.
        """
        signature = self._example_signature(request.model_spec.signature_name)
        input_name, outputs = classification_outputs(signature)
        examples = serialized_examples(request.input)
        arrays = self.run({input_name: examples}, list(outputs.values()))
        response = classification_pb2.ClassificationResponse()
        response.model_spec.CopyFrom(self._spec(request.model_spec))
        classification_result(
            dict(zip(outputs, arrays, strict=True)), len(examples), response.result
        )
        return response

    def regress(
        self, request: regression_pb2.RegressionRequest
    ) -> regression_pb2.RegressionResponse:
        """The Regress call, as regressor.cc answers it.

        Raises:
            ServingError: the signature is not a regression, or the input is empty or bad.
        """
        signature = self._example_signature(request.model_spec.signature_name)
        input_name, output_name = regression_output(signature)
        examples = serialized_examples(request.input)
        (array,) = self.run({input_name: examples}, [output_name])
        response = regression_pb2.RegressionResponse()
        response.model_spec.CopyFrom(self._spec(request.model_spec))
        regression_result(array, len(examples), response.result)
        return response

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        """The MultiInference call, as multi_inference.cc answers it: one run for all its tasks.

        Raises:
            ServingError: a task's signature does not fit its method, or the input is empty or bad.
        """
        tasks = self._tasks(request)
        input_names = {input_name for _, input_name, _ in tasks}
        output_names = sorted({name for _, _, outputs in tasks for name in outputs.values()})
        examples = serialized_examples(request.input)
        arrays = self.run(dict.fromkeys(input_names, examples), output_names)
        found = dict(zip(output_names, arrays, strict=True))
        response = inference_pb2.MultiInferenceResponse()
        for task, _, outputs in tasks:
            result = response.results.add()
            result.model_spec.CopyFrom(self._spec(task.model_spec))
            if task.method_name == _CLASSIFY:
                classification_result(
                    {alias: found[name] for alias, name in outputs.items()},
                    len(examples),
                    result.classification_result,
                )
            else:
                (name,) = outputs.values()
                regression_result(found[name], len(examples), result.regression_result)
        return response

    # -- checks, in TF Serving's order and words ---------------------------------------------------

    def _tasks(
        self, request: inference_pb2.MultiInferenceRequest
    ) -> list[tuple[inference_pb2.InferenceTask, str, dict[str, str]]]:
        """Each task with its input's tensor name and its outputs' by alias."""
        tasks, seen = [], set()
        for task in request.tasks:
            if not task.model_spec.name:
                raise invalid_argument("Found ModelSpec with an empty model name.")
            if task.model_spec.name != request.tasks[0].model_spec.name:
                raise invalid_argument(
                    "All ModelSpecs in a MultiInferenceRequest must access the same model name."
                )
            name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            if name in seen:
                raise invalid_argument(f"Duplicate evaluation of signature: {name}")
            seen.add(name)
            if name not in self.signatures:
                raise invalid_argument(f"Requested signature not found in model graph: {name}")
            if task.method_name == _CLASSIFY:
                input_name, outputs = classification_outputs(self.signatures[name])
            elif task.method_name == _REGRESS:
                input_name, output = regression_output(self.signatures[name])
                outputs = {"outputs": output}
            else:
                raise unimplemented(f"Unsupported signature method_name: {task.method_name}")
            tasks.append((task, input_name, outputs))
        return tasks

    def _predict_signature(self, name: str, sent: list[str]) -> meta_graph_pb2.SignatureDef:
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise failed_precondition(f'Serving signature key "{name}" not found.')
        signature = self.signatures[name]
        known, defaults = set(signature.inputs), set(signature.defaults)
        if len(sent) > len(known) or (len(sent) < len(known) and not defaults):
            raise invalid_argument(
                f"input size does not match signature: {len(sent)}!={len(known)} "
                f"len({{{_join(sent)}}}) != len({{{_join(known)}}}). "
                f"Sent extra: {{{_join(set(sent) - known)}}}. "
                f"Missing but required: {{{_join(known - set(sent))}}}."
            )
        return signature

    @staticmethod
    def _feeds(
        signature: meta_graph_pb2.SignatureDef,
        inputs: Mapping[str, np.ndarray | tensor_pb2.TensorProto],
    ) -> dict[str, np.ndarray]:
        """The sent inputs (else the signature's defaults) by tensor name, parsed."""
        feeds: dict[str, np.ndarray] = {}
        used = []
        for alias, info in signature.inputs.items():
            if alias in inputs:
                value = inputs[alias]
                used.append(alias)
            elif alias in signature.defaults:
                value = signature.defaults[alias]
            else:
                raise invalid_argument(
                    f"Signature input alias: {alias}(feed name: {info.name}) not found in request "
                    "and no default value provided. Inputs expected to be in the request "
                    f"{{{_join(inputs)}}}, or default input alias set: {_join(signature.defaults)}"
                )
            array = value if isinstance(value, np.ndarray) else parse_tensor(value)
            if array is None:
                raise invalid_argument(f"tensor parsing error: {alias}")
            feeds[info.name] = array
        if len(used) != len(inputs):
            raise invalid_argument(
                f"Inputs contains invalid name. Used request inputs: {_join(used)}, "
                f"request input: {_join(inputs)}"
            )
        return feeds

    def _run_signature(
        self,
        signature: meta_graph_pb2.SignatureDef,
        feeds: Mapping[str, np.ndarray],
        output_filter: Sequence[str],
    ) -> dict[str, np.ndarray]:
        seen: list[str] = []
        for alias in output_filter:
            if alias not in signature.outputs:
                raise invalid_argument(
                    f"output tensor alias not found in signature: {alias} Outputs expected to be "
                    f"in the set {{{_join(signature.outputs)}}}."
                )
            if alias in seen:
                raise invalid_argument(f"duplicate output tensor alias: {alias}")
            seen.append(alias)
        aliases = seen or sorted(signature.outputs)
        arrays = self.run(feeds, [signature.outputs[alias].name for alias in aliases])
        return dict(zip(aliases, (np.asarray(array) for array in arrays), strict=True))

    def _example_signature(self, name: str) -> meta_graph_pb2.SignatureDef:
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise invalid_argument(f"No signature was found with the name: {name}")
        return self.signatures[name]

    def _spec(self, requested: model_pb2.ModelSpec) -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(
            name=requested.name, signature_name=requested.signature_name or DEFAULT_SIGNATURE
        )
        spec.version.value = self.version
        return spec


def _join(names: object) -> str:
    return ",".join(sorted(names))  # type: ignore[call-overload]
