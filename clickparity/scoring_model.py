"""An exported model in this process: raw columns in, probabilities out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ConfigError, GateError, reason_of
from serving.client.columns import Column, convert_column
from serving.export.manifest import Manifest, verify_manifest
from serving.server.servable import DEFAULT_SIGNATURE, Servable
from serving.server.status import ServingError
from serving.wire.tensors import numpy_dtype

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ScoringModel"]


class ScoringModel:
    """A SavedModel through TF Serving's own loader; thread-safe; a context manager.

    Scores are bitwise those that TF Serving gives for the same rows in the same batch. Make one with
    `clickparity.load_model`.

    Attributes:
        path: the SavedModel's directory.
        fingerprint: of the run that made it.
        inputs: what a call takes: the name of each raw column -> its dtype (object: text or bytes).
    """

    def __init__(self, path: Path, manifest: Manifest, servable: Servable) -> None:
        self.path, self.fingerprint, self._servable = path, manifest.fingerprint, servable
        signature = servable.inputs[DEFAULT_SIGNATURE]
        dtypes = {name: numpy_dtype(signature[name].dtype) for name in sorted(signature)}
        self.inputs: dict[str, np.dtype] = {n: d for n, d in dtypes.items() if d is not None}

    @classmethod
    def load(cls, path: Path) -> ScoringModel:
        """Verifies an export's bytes and loads it.

        Raises:
            ConfigError: no export there.
            GateError: it is damaged, or does not load.
        """
        manifest = verify_manifest(path)
        try:
            return cls(path, manifest, Servable(path.name, 1, str(path)))
        except Exception as error:  # TensorFlow's, of many types
            raise GateError("an export must load", f"{path}: {reason_of(error)}") from error

    def __call__(self, columns: Mapping[str, Column]) -> np.ndarray:
        """Calibrated click probabilities, float32 [B].

        Args:
            columns: for each input its values, a row each; a missing one is None (or NaN, b"").

        Raises:
            ConfigError: an unknown or missing input, columns of different lengths, or a value that is
                not of its input's dtype.
        """
        return self._predict(columns)["probability"]

    def logits(self, columns: Mapping[str, Column]) -> np.ndarray:
        """Calibrated logits, float32 [B]; arguments and errors as for a call."""
        return self._predict(columns)["logit"]

    def _predict(self, columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
        missing, unknown = (
            sorted(self.inputs.keys() - columns),
            sorted(columns.keys() - self.inputs),
        )
        if missing or unknown:
            raise ConfigError(
                "the columns must be the inputs of the model",
                f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}",
                f"Its inputs are: {', '.join(self.inputs)}.",
            )
        arrays = {name: convert_column(name, columns[name], d) for name, d in self.inputs.items()}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ConfigError("all columns must have the same number of rows", lengths)
        try:
            return self._servable.predict_arrays(
                DEFAULT_SIGNATURE, arrays, ["probability", "logit"]
            )
        except ServingError as error:
            raise ConfigError("the model must accept the columns", error) from None

    def close(self) -> None:
        """Frees the session."""
        self._servable.retire()

    def __enter__(self) -> ScoringModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
