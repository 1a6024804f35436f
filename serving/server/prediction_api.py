"""The calls of TF Serving's two services on their official protos, whichever wire they came by."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server.repository_watch import WatchedModels
from serving.server.status import invalid_argument, not_found

__all__ = ["SIGNATURE_DEF", "PredictionApi", "version_of"]

SIGNATURE_DEF = "signature_def"
"""The one metadata field there is."""


def version_of(spec: model_pb2.ModelSpec) -> int | None:
    """The version that a request asks for; None for the latest.

    Raises:
        ServingError: INVALID_ARGUMENT: no model name, or a label (this server has none).
    """
    if not spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    if spec.WhichOneof("version_choice") == "version_label":
        raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
    return spec.version.value if spec.HasField("version") else None


class PredictionApi:
    """Answers requests from the repository; every method raises ServingError and nothing else."""

    def __init__(self, repository: WatchedModels) -> None:
        self.repository = repository

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """PredictionService.Predict."""
        spec = _model_spec(request)
        with self.repository.servable(spec.name, version_of(spec)) as servable:
            return servable.predict(request)

    def classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """PredictionService.Classify."""
        spec = _model_spec(request)
        with self.repository.servable(spec.name, version_of(spec)) as servable:
            return servable.classify(request)

    def regress(
        self, request: regression_pb2.RegressionRequest
    ) -> regression_pb2.RegressionResponse:
        """PredictionService.Regress."""
        spec = _model_spec(request)
        with self.repository.servable(spec.name, version_of(spec)) as servable:
            return servable.regress(request)

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        """PredictionService.MultiInference; the first task names model and version for all."""
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        with self.repository.servable(spec.name, version_of(spec)) as servable:
            return servable.multi_inference(request)

    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """PredictionService.GetModelMetadata."""
        spec = _model_spec(request)
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for name in request.metadata_field:
            if name != SIGNATURE_DEF:
                raise invalid_argument(f"Metadata field {name} is not supported")
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self.repository.servable(spec.name, version_of(spec)) as servable:
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response

    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """ModelService.GetModelStatus."""
        spec = _model_spec(request)
        states = self.repository.states(spec.name)
        if spec.HasField("version"):
            version = spec.version.value
            if version not in states:
                raise not_found(f"Could not find version {version} of model {spec.name}")
            states = {version: states[version]}
        if not states:
            raise not_found(f"Could not find any versions of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state in states.items():
            status = response.model_version_status.add(version=version, state=int(state.state))
            status.status.error_code = state.error_code
            status.status.error_message = state.error_message
        return response


def _model_spec(request: Any) -> model_pb2.ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    spec: model_pb2.ModelSpec = request.model_spec
    return spec
