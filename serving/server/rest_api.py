"""TF Serving's REST API as a function: method, path and body in, status and body out.

    POST /v1/models/NAME[/versions/N]:predict | :classify | :regress
    GET  /v1/models/NAME[/versions/N]            the versions and their states
    GET  /v1/models/NAME[/versions/N]/metadata   the signatures
    GET  /monitoring/prometheus/metrics
    GET  /healthz                                200 when ready, else 503 (not in TF Serving)

Paths and errors by TF Serving's model_servers/http_rest_api_util.cc and http_rest_api_handler.cc.
"""

from __future__ import annotations

import dataclasses
import http
import json
import logging
import re
import time
import urllib.parse

from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from serving.server.metrics import METRICS_PATH, UNKNOWN_MODEL, ServerMetrics
from serving.server.prediction_api import SIGNATURE_DEF, PredictionApi, version_of
from serving.server.rest_json.examples import parse_examples
from serving.server.rest_json.requests import TensorInfos, parse_predict
from serving.server.rest_json.responses import (
    classify_response,
    error_response,
    predict_response,
    regress_response,
)
from serving.server.servable import DEFAULT_SIGNATURE, Servable
from serving.server.status import ServingError, internal, invalid_argument, not_found

__all__ = ["HEALTH_PATH", "Reply", "RestApi", "error_page"]

logger = logging.getLogger(__name__)

HEALTH_PATH = "/healthz"

_VERSION_OR_LABEL = r"(?:(?:/versions/(?P<version>[0-9]+))|(?:/labels/(?P<label>[^/:]+)))?"
_PREDICTION_PATH = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_VERSION_OR_LABEL}:(?P<method>classify|regress|predict)", re.I
)
_MODEL_PATH = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION_OR_LABEL}(?:/(?P<subresource>metadata))?", re.I
)
_API_PATH = re.compile(r"/v1/.*", re.I)
# libevent's URIs: RFC 3986 to the letter, of which scheme and host are not looked at.
_CHARACTER = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})"
_TARGET = re.compile(
    rf"(?:[A-Za-z][A-Za-z0-9+.\-]*:)?(?://[^/?\#]*)?"
    rf"(?P<path>{_CHARACTER}*(?:\?(?:{_CHARACTER}|\?)*)?(?:\#(?:{_CHARACTER}|\?)*)?)"
)


@dataclasses.dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: str = "application/json"


def error_page(status: int) -> Reply:
    """What TF Serving's HTTP library, libevent, answers where the API is not reached."""
    title = f"{status} {http.HTTPStatus(status).phrase}"
    page = f"<HTML><HEAD>\n<TITLE>{title}</TITLE>\n</HEAD><BODY>\n<H1>{title[4:]}</H1>\n"
    return Reply(status, f"{page}</BODY></HTML>\n".encode(), "text/html")


class RestApi:
    """Answers HTTP requests; never raises.

    Args:
        api: answers the calls.
        metrics: counts them, and its page is served.
    """

    def __init__(self, api: PredictionApi, metrics: ServerMetrics) -> None:
        self._api, self._metrics = api, metrics

    def answer(self, method: str, target: str, body: bytes, origin: str = "") -> Reply:
        """The answer to one request.

        Args:
            method: GET, POST and so on.
            target: what the request line names, with its query, for which TF Serving has no use.
            body: unchunked and gunzipped.
            origin: the header of this name, which a browser's OPTIONS request has.
        """
        parts = _TARGET.fullmatch(target)
        if parts is None:
            return error_page(400)
        path = parts["path"]
        if path == METRICS_PATH:
            return Reply(200, self._metrics.page(), "text/plain")
        if path.partition("?")[0] == METRICS_PATH:
            unexpected = f"Unexpected path: {path}. Should be {METRICS_PATH}"
            return Reply(400, unexpected.encode(), "text/plain")
        if path == HEALTH_PATH:
            ready = self._api.repository.is_ready()
            return Reply(200 if ready else 503, b'{"ready": %s}' % str(ready).lower().encode())
        if not _API_PATH.fullmatch(path):
            return error_page(404)
        if method == "OPTIONS":
            allowed = re.search("https?://", origin)
            return Reply(200 if allowed else 400, b"", "text/html; charset=ISO-8859-1")
        started = time.perf_counter()
        spec, call, code = model_pb2.ModelSpec(), "", "OK"
        try:
            answer, call = self._dispatch(method, path, body, spec)
            reply = Reply(200, answer)
        except ServingError as error:
            code = error.code.name
            # TF Serving forgets the text where the path itself is wrong (http_rest_api_handler.cc).
            text = error_response(error.message) if error.message else b""
            reply = Reply(error.http_status, text)
        except Exception as error:  # a bug here must not look like the caller's mistake
            logger.exception("%s %s failed", method, path)
            code = "INTERNAL"
            reply = Reply(500, error_response(f"{type(error).__name__}: {error}"))
        name = spec.name if self._api.repository.is_known(spec.name) else UNKNOWN_MODEL
        self._metrics.count_request(name, code)
        if reply.status == 200:
            elapsed_us = (time.perf_counter() - started) * 1e6
            self._metrics.observe_latency(name, call, "REST", elapsed_us)
        return reply

    def _dispatch(
        self, method: str, path: str, body: bytes, spec: model_pb2.ModelSpec
    ) -> tuple[bytes, str]:
        """The answer's body and the call's name; fills `spec` for the caller to count by."""
        malformed = invalid_argument(f"Malformed request: {method} {path}")
        pattern = {"POST": _PREDICTION_PATH, "GET": _MODEL_PATH}.get(method)
        match = pattern.fullmatch(path) if pattern else None
        if match is None:
            raise malformed
        about_status = method == "GET" and match["subresource"] != "metadata"
        _fill_spec(spec, match, about_status=about_status)
        if method == "GET":
            if not spec.name:
                raise invalid_argument("Missing model name in request.")
            return (self._status(spec) if about_status else self._metadata(spec)), ""
        # The path is matched without regard to case, the call is not: ":Predict" is malformed.
        calls = {"predict": self._predict, "classify": self._classify, "regress": self._regress}
        call = calls.get(match["method"])
        if call is None:
            raise malformed
        return call(spec, body), match["method"]

    def _predict(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        # The version is held from before the parsing, which needs its signature, to the answer.
        # TF Serving looks it up twice and, across a swap, may parse by one and run the other.
        with self._api.repository.servable(spec.name, version_of(spec)) as servable:
            name, inputs, form = parse_predict(body, lambda name: _inputs(servable, name))
            return predict_response(servable.predict_arrays(name, inputs), form)

    def _classify(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        request = classification_pb2.ClassificationRequest(model_spec=spec)
        _fill_examples(request, body)
        return classify_response(self._api.classify(request).result)

    def _regress(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        request = regression_pb2.RegressionRequest(model_spec=spec)
        _fill_examples(request, body)
        return regress_response(self._api.regress(request).result)

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        response = self._api.get_model_status(request)
        text = json_format.MessageToJson(
            response, indent=1, always_print_fields_with_no_presence=True
        )
        return (text + "\n").encode()

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=[SIGNATURE_DEF]
        )
        response = self._api.get_model_metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        if not response.metadata[SIGNATURE_DEF].Unpack(signatures):
            raise internal("Failed to unpack 'Any' object to 'SignatureDefMap'.")

        def plain(message: object) -> object:
            return json_format.MessageToDict(
                message,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )

        document = {
            "model_spec": plain(response.model_spec),
            "metadata": {"signature_def": plain(signatures)},
        }
        return (json.dumps(document, indent=1) + "\n").encode()


def _inputs(servable: Servable, signature_name: str) -> TensorInfos:
    name = signature_name or DEFAULT_SIGNATURE
    if name not in servable.inputs:
        raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
    return servable.inputs[name]


def _fill_examples(
    request: classification_pb2.ClassificationRequest | regression_pb2.RegressionRequest,
    body: bytes,
) -> None:
    name, examples = parse_examples(body)
    try:
        request.model_spec.signature_name = name
    except ValueError:  # bytes that are no UTF-8, which a proto cannot hold, name no signature
        raise invalid_argument(f"No signature was found with the name: {name}") from None
    request.input.CopyFrom(examples)


def _fill_spec(spec: model_pb2.ModelSpec, match: re.Match[str], *, about_status: bool) -> None:
    name, label = (
        urllib.parse.unquote(match[part] or "", errors="surrogateescape")
        for part in ("name", "label")
    )
    version = match["version"]
    if version is not None:
        if len(version.lstrip("0")) > 19 or int(version) >= 2**63:
            raise invalid_argument("")
        spec.version.value = int(version)
    if label and not about_status:  # the status is that of all versions, whatever the label
        if _is_no_text(label):
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        spec.version_label = label
    if _is_no_text(name):  # bytes, which the proto cannot hold here, and no model has
        if about_status:
            which = "any versions" if version is None else f"version {int(version)}"
            raise not_found(f"Could not find {which} of model {name}")
        asked = f"Latest({name})" if version is None else f"Specific({name}, {int(version)})"
        raise not_found(f"Servable not found for request: {asked}")
    spec.name = name


def _is_no_text(name: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in name)
