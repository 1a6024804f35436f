"""What a models directory holds, and the states that a version goes through."""

from __future__ import annotations

import dataclasses
import enum
import posixpath
import re

import tensorflow as tf

from serving.server.status import ServingError

__all__ = ["State", "VersionState", "list_models", "list_versions", "status_of"]

_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")  # absl::SimpleAtoi
_INT64 = range(-(2**63), 2**63)


class State(enum.IntEnum):
    """A version's life, numbered as ModelVersionStatus.State on the wire."""

    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclasses.dataclass(frozen=True)
class VersionState:
    """Where a version stands, and why its load failed if it did.

    TF Serving reports the failure only with END, after its last attempt; here a version that waits
    for another attempt (LOADING) already carries it.
    """

    state: State
    error_code: int = 0
    error_message: str = ""
    num_failures: int = 0
    next_attempt: float = 0.0  # on time.monotonic's clock

    def may_try_again(self, now: float) -> bool:
        """Whether a version that failed is due for another attempt."""
        return self.state is not State.END and now >= self.next_attempt


def list_models(models_dir: str) -> list[str]:
    """The model names: MODELS_DIR's subdirectories but the hidden ones. Empty when it is gone."""
    return sorted(
        name
        for name in _children(models_dir)
        if not name.startswith(".") and tf.io.gfile.isdir(posixpath.join(models_dir, name))
    )


def list_versions(model_dir: str) -> dict[int, str]:
    """The versions in a model's directory: number -> path."""
    return {
        int(name): posixpath.join(model_dir, name)
        for name in _children(model_dir)
        if _INTEGER.fullmatch(name) and int(name) in _INT64
    }


def _children(directory: str) -> list[str]:
    try:
        return [name.rstrip("/") for name in tf.io.gfile.listdir(directory)]
    except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError):  # gone, or a file
        return []


def status_of(error: Exception) -> tuple[int, str]:
    """The wire's status code and message for what a load raised."""
    if isinstance(error, ServingError):
        return int(error.code.value[0]), error.message
    if isinstance(error, tf.errors.OpError):
        return error.error_code, error.message
    if isinstance(error, OSError):
        return tf.errors.NOT_FOUND, str(error)
    return tf.errors.UNKNOWN, f"{type(error).__name__}: {error}"
