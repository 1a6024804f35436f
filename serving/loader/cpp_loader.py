"""Scores through TF Serving's own loader: a C++ program with no Python in its process.

`tf.saved_model.load` is not what production does. TF Serving calls `LoadSavedModel` and
`Session::Run`; an op that lives in Python (`tf.py_function`), for one, saves and loads here and
fails only there. The TensorFlow wheel holds that loader, so where a C++ compiler exists
`loader/score_requests.cc` is built against the wheel (seconds, once for each TensorFlow) and fed a
file of requests. Where none exists, `build_loader` returns None and says why, and the caller uses
`tf.compat.v1.saved_model.loader` in a fresh process instead.

A model is loaded and run on the CPU: the caller's own process may hold all of a GPU's memory.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ClickparityError, ConfigError, GateError

__all__ = [
    "LoaderTiming",
    "build_loader",
    "score_requests_with_loader",
    "score_with_loader",
    "time_with_loader",
]

_SOURCE = Path(__file__).with_name("score_requests.cc")
_LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
_WHEELS = ("tensorflow", "tensorflow-cpu", "tf-nightly")
_log = logging.getLogger(__name__)


class _UnavailableError(Exception):
    """Why the loader cannot be built here, one sentence."""


def _compiler() -> list[str] | None:
    """`$CXX` (which may hold arguments), else g++ or clang++, when it can be found."""
    for command in [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    return None


def _tensorflow() -> tuple[Path, str] | None:
    """The wheel's directory and version, found without importing it (which takes seconds)."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        return None
    for wheel in _WHEELS:
        try:
            return Path(spec.submodule_search_locations[0]), importlib.metadata.version(wheel)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def build_loader(
    cache_dir: str | Path,
    *,
    on_unavailable: Callable[[str], None] = _log.warning,
    timeout_s: float = 600.0,
) -> Path | None:
    """Builds the loader, or finds it built already.

    The binary's name holds a hash of the source, the TensorFlow version and directory, and the
    compiler, so a changed one is built anew; it appears by rename, so several processes may build
    at once.

    Args:
        cache_dir: where binaries are kept; made when missing.
        on_unavailable: called with the reason, one sentence, when None is returned.
        timeout_s: for the compiler.

    Returns:
        The binary, or None where it cannot be built: no compiler, no library in the wheel, or the
        compiler failed.
    """
    try:
        compiler, wheel_dir, version = _tools()
        key = json.dumps([version, str(wheel_dir), compiler, shutil.which(compiler[0])]).encode()
        digest = hashlib.sha256(_SOURCE.read_bytes() + key).hexdigest()[:16]
        binary = Path(cache_dir) / f"score_requests-{version}-{digest}"
        if not binary.exists():
            _compile(compiler, wheel_dir, binary, timeout_s)
    except _UnavailableError as error:
        on_unavailable(str(error))
        return None
    return binary


def _tools() -> tuple[list[str], Path, str]:
    """The compiler, and the wheel's directory and version.

    Raises:
        _UnavailableError: one is missing.
    """
    compiler, tensorflow = _compiler(), _tensorflow()
    if compiler is None:
        reason = "no C++ compiler: neither $CXX nor g++ nor clang++ can be found"
        raise _UnavailableError(reason)
    if tensorflow is None:
        raise _UnavailableError("no TensorFlow wheel is installed")
    wheel_dir, version = tensorflow
    for library in _LIBRARIES:
        if not (wheel_dir / library).exists():
            reason = f"the TensorFlow {version} wheel in {wheel_dir} has no {library}"
            raise _UnavailableError(reason)
    return compiler, wheel_dir, version


def _compile(compiler: list[str], wheel_dir: Path, binary: Path, timeout_s: float) -> None:
    """Builds `binary`, which appears by rename.

    Raises:
        _UnavailableError: the compiler fails.
    """
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=binary.parent) as scratch:
        built = Path(scratch, "score_requests")
        # --no-as-needed: the linker sees no direct call into libtensorflow_cc's session factories
        # and would drop the library that registers them.
        command = [*compiler, "-std=c++17", "-O2", "-w", f"-I{wheel_dir / 'include'}", str(_SOURCE)]
        command += ["-o", str(built), f"-L{wheel_dir}", "-Xlinker", "-rpath"]
        command += ["-Xlinker", str(wheel_dir), "-Wl,--no-as-needed"]
        command += [f"-l:{library}" for library in _LIBRARIES]
        _log.info("building TF Serving's loader with %s", compiler[0])
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _UnavailableError(f"the C++ compiler did not finish: {error}") from error
        if done.returncode != 0:
            first_error = next((ln for ln in done.stderr.splitlines() if "error" in ln), "")
            reason = first_error or done.stderr[-500:]
            raise _UnavailableError(f"the C++ compiler failed: {reason}")
        os.replace(built, binary)


@dataclass(frozen=True)
class LoaderTiming:
    """How long `Session::Run` took, apart from decoding the request and encoding the answer.

    Attributes:
        calls: of all callers.
        min_ns, median_ns, p99_ns: of a call.
        calls_per_s: of all callers together.
    """

    calls: int
    min_ns: int
    median_ns: int
    p99_ns: int
    calls_per_s: float


def score_with_loader(
    binary: Path,
    saved_model_dir: str | Path,
    signature_name: str,
    inputs: Mapping[str, np.ndarray],
    *,
    timeout_s: float = 600.0,
) -> dict[str, np.ndarray]:
    """Scores one request; see `score_requests_with_loader`."""
    return score_requests_with_loader(
        binary, saved_model_dir, signature_name, [inputs], timeout_s=timeout_s
    )[0]


def score_requests_with_loader(
    binary: Path,
    saved_model_dir: str | Path,
    signature_name: str,
    requests: Sequence[Mapping[str, np.ndarray]],
    *,
    timeout_s: float = 600.0,
) -> list[dict[str, np.ndarray]]:
    """Loads a SavedModel once in a fresh process and scores requests with it.

    Args:
        binary: what `build_loader` returned.
        saved_model_dir: a local SavedModel.
        signature_name: such as "serving_default".
        requests: for each, the signature's input names -> arrays of its dtypes; strings as arrays
            of dtype object holding bytes or str.
        timeout_s: for loading and scoring together.

    Returns:
        For each request its outputs by name, with the bits that the session produced; strings as
        arrays of dtype object holding bytes.

    Raises:
        GateError: if the model does not load, has no such signature, or refuses a request; with
            TensorFlow's own words.
        ClickparityError: if it takes longer than `timeout_s`.
    """
    answers, _ = _run(binary, saved_model_dir, signature_name, requests, [], timeout_s)
    return answers


def time_with_loader(
    binary: Path,
    saved_model_dir: str | Path,
    signature_name: str,
    requests: Sequence[Mapping[str, np.ndarray]],
    *,
    repeat: int,
    threads: int = 0,
    callers: int = 1,
    timeout_s: float = 600.0,
) -> list[LoaderTiming]:
    """Times each request, `repeat` calls of each caller one after the other, after 10 that do not count.

    Args:
        binary: what `build_loader` returned.
        saved_model_dir: a local SavedModel.
        signature_name: such as "serving_default".
        requests: as for `score_requests_with_loader`.
        repeat: calls that count, at least 1.
        threads: of each of the session's two pools; 0 is TensorFlow's own choice, as in TF Serving.
        callers: threads that call at once, as a server without batching does.
        timeout_s: for everything together.

    Raises:
        ConfigError: if repeat < 1, threads < 0 or callers < 1.
        GateError, ClickparityError: as `score_requests_with_loader`.
    """
    if repeat < 1 or threads < 0 or callers < 1:
        raise ConfigError(
            "timing needs repeat >= 1, threads >= 0 and callers >= 1",
            f"repeat={repeat}, threads={threads}, callers={callers}",
            "Try repeat=1000, threads=0, callers=1.",
        )
    options = ["--repeat", str(repeat), "--threads", str(threads), "--callers", str(callers)]
    _, printed = _run(binary, saved_model_dir, signature_name, requests, options, timeout_s)
    return [
        LoaderTiming(**{n: line[n] for n in LoaderTiming.__annotations__})
        for line in map(json.loads, printed.splitlines())
    ]


def _run(
    binary: Path,
    saved_model_dir: str | Path,
    signature_name: str,
    requests: Sequence[Mapping[str, np.ndarray]],
    options: Sequence[str],
    timeout_s: float,
) -> tuple[list[dict[str, np.ndarray]], str]:
    """Runs the program; returns the answers and what it printed."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    with tempfile.TemporaryDirectory(prefix="clickparity-loader-") as scratch:
        asked, answered = Path(scratch, "requests"), Path(scratch, "responses")
        with open(asked, "wb") as out:
            out.writelines(_encode_request(request) for request in requests)
        command = [str(binary), str(saved_model_dir), signature_name, str(asked), str(answered)]
        try:
            done = subprocess.run(
                [*command, *options],
                capture_output=True,
                text=True,
                errors="replace",
                env=environment,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise ClickparityError(
                f"the loader must finish within {timeout_s:g} s",
                f"{len(requests)} requests to {saved_model_dir}",
                "Give it a longer timeout_s, or fewer requests.",
            ) from error
        if done.returncode != 0:
            raise GateError(
                f"TF Serving's loader must load and run {saved_model_dir}",
                _why(done),
                "What it refuses, TF Serving refuses: fix the export.",
            )
        answers = _decode_responses(answered.read_bytes())
    if len(answers) != len(requests):
        raise GateError("the loader must answer every request", f"{len(answers)} answers")
    for place, (status, message, _) in enumerate(answers):
        if status:
            raise GateError(
                f"signature {signature_name} of {saved_model_dir} must accept request {place}",
                f"status {status}, {message}",
                "Compare the request with the signature's inputs.",
            )
    return [tensors for _, _, tensors in answers], done.stdout


def _why(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"the loader died of {signal.Signals(-done.returncode).name}: {done.stderr[-500:]}"
    complaints = [line for line in done.stderr.splitlines() if line.startswith("cannot ")]
    return complaints[-1] if complaints else f"exit code {done.returncode}: {done.stderr[-500:]}"


def _encode_request(request: Mapping[str, np.ndarray]) -> bytes:
    """One frame as `score_requests.cc` describes it, little-endian."""
    import tensorflow as tf

    parts = [struct.pack("<III", 0, 0, len(request))]
    for name, array in request.items():
        proto = tf.make_tensor_proto(array).SerializeToString()
        encoded = name.encode()
        parts += [struct.pack("<I", len(encoded)), encoded, struct.pack("<Q", len(proto)), proto]
    return b"".join(parts)


def _decode_responses(content: bytes) -> list[tuple[int, str, dict[str, np.ndarray]]]:
    """The status, message and tensors of each frame."""
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    place = 0

    def take(size: int) -> bytes:
        nonlocal place
        place += size
        if place > len(content):
            raise GateError("the loader must answer every request whole", f"{len(content)} bytes")
        return content[place - size : place]

    answers = []
    while place < len(content):
        status, size = struct.unpack("<II", take(8))
        message = take(size).decode(errors="replace")
        tensors = {}
        for _ in range(struct.unpack("<I", take(4))[0]):
            name = take(struct.unpack("<I", take(4))[0]).decode()
            proto = tensor_pb2.TensorProto.FromString(take(struct.unpack("<Q", take(8))[0]))
            tensors[name] = tf.make_ndarray(proto)
        answers.append((status, message, tensors))
    return answers
