"""Everything one training leaves behind, written and read back in one place.

    RUN_DIR/
      config.yaml        model, train and data sections, with the run's fingerprint
      spec.json          the EncodedSpec that the model was built for
      checkpoints/       resumable states (models.training.checkpoints)
      weights.npz        the final weights
      training.json      what the training came to: steps, epochs, losses, speed
      history.jsonl      one line an epoch
      metrics.json  calibration.json  parity.json  parity.html  logs/
      _SUCCESS           the fingerprint; written last

TensorFlow is imported only where weights become a model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from models.config.model import ModelConfig, parse_model_config
from models.config.train import TrainConfig, parse_train_config
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec
from pipeline.step_directory import SUCCESS, write_atomically

if TYPE_CHECKING:
    from models.zoo.base import CTRModel

__all__ = ["RunDirectory", "run_fingerprint"]


def run_fingerprint(config: Mapping[str, Any], data_fingerprint: str) -> str:
    """The id of a run: 16 hex digits over its config and its data, whatever the key order."""
    text = json.dumps([config, data_fingerprint], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(path: Path, content: str) -> None:
    """`write_atomically`, for a reader who chose the directory.

    Raises:
        ConfigError: the directory cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise _cannot_write(path, error) from None


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """A run's directory. Make one with `create`, read one with `open`.

    Attributes:
        path: the directory.
        config: the sections that `create` was given ("model", "train", ...).
        data_fingerprint: of the data directory that the run trains on.
        data_path: where that directory was.
        fingerprint: `run_fingerprint` of the two first.
    """

    path: Path
    config: dict[str, Any]
    data_fingerprint: str
    data_path: str
    fingerprint: str

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        data_fingerprint: str,
        data_path: str | Path,
    ) -> RunDirectory:
        """Makes the directory, or opens it when it already belongs to the same run.

        Args:
            path: where.
            config: plain data; needs a "model" section for `load_model` and usually has "train".
            data_fingerprint: `DataDirectory.fingerprint`.
            data_path: `DataDirectory.path`.

        Raises:
            ConfigError: `path` holds another run, is a file, or cannot be written.
        """
        path = Path(path)
        plain: dict[str, Any] = json.loads(json.dumps(config, default=str))
        fingerprint = run_fingerprint(plain, data_fingerprint)
        if (path / "config.yaml").exists():
            run = cls.open(path)
            if run.fingerprint != fingerprint:
                raise ConfigError(
                    "a run directory belongs to one config and one data set",
                    f"{path} holds run {run.fingerprint}, this is run {fingerprint}"
                    f" ({_first_difference(run, plain, data_fingerprint)})",
                    "Choose another --out, or delete that directory.",
                )
            return run
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            (path / "logs").mkdir(exist_ok=True)
        except OSError as error:
            raise _cannot_write(path, error) from None
        document = {
            "fingerprint": fingerprint,
            "data": {"path": str(data_path), "fingerprint": data_fingerprint},
            "config": plain,
        }
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        _write(path / "config.yaml", text)
        return cls(path, plain, data_fingerprint, str(data_path), fingerprint)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Opens a directory that `create` made.

        Raises:
            ConfigError: it is none.
        """
        path = Path(path)
        try:
            document = yaml.safe_load((path / "config.yaml").read_text())
            return cls(
                path,
                document["config"],
                document["data"]["fingerprint"],
                document["data"]["path"],
                document["fingerprint"],
            )
        except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
            raise ConfigError(
                "a run directory holds a config.yaml",
                f"{path} ({type(error).__name__})",
                "Make one with: clickparity train --data DATA_DIR --out RUN_DIR.",
            ) from None

    @functools.cached_property
    def model_config(self) -> ModelConfig:
        """The "model" section, validated."""
        return parse_model_config(self.config.get("model", {}))

    @functools.cached_property
    def train_config(self) -> TrainConfig:
        """The "train" section, validated."""
        return parse_train_config(self.config.get("train"))

    @property
    def spec(self) -> EncodedSpec:
        """The shapes that the model was built for.

        Raises:
            ConfigError: nothing was trained here yet, or the file is damaged.
        """
        with _whole(self.path / "spec.json"):
            return EncodedSpec.from_json(self._read("spec.json"))

    @property
    def checkpoints(self) -> Path:
        """Where resumable states are kept."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """Where TensorBoard looks."""
        return self.path / "logs"

    def save_spec(self, spec: EncodedSpec) -> None:
        """Writes spec.json."""
        _write(self.path / "spec.json", spec.to_json())

    def write_json(self, name: str, value: Any) -> Path:
        """Writes metrics.json, calibration.json, parity.json and their like.

        Raises:
            ValueError: a NaN or an infinity, which JSON cannot say.
        """
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
        _write(self.path / name, f"{text}\n")
        return self.path / name

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote.

        Raises:
            ConfigError: the file is not there or damaged, with what makes it.
        """
        with _whole(self.path / name):
            return json.loads(self._read(name))

    def has(self, name: str) -> bool:
        """Whether a file of the run exists."""
        return (self.path / name).exists()

    @property
    def is_trained(self) -> bool:
        """Whether a training has come to its end here, and all that it leaves is there."""
        return all(self.has(name) for name in ("spec.json", "training.json", "weights.npz"))

    def write_history(self, epochs: Iterable[Mapping[str, Any]]) -> None:
        """Writes history.jsonl anew: a resumed run repeats no line."""
        lines = "".join(json.dumps(epoch, sort_keys=True) + "\n" for epoch in epochs)
        _write(self.path / "history.jsonl", lines)

    def read_history(self) -> list[dict[str, Any]]:
        """One dict an epoch; [] before the first one ended."""
        if not self.has("history.jsonl"):
            return []
        with _whole(self.path / "history.jsonl"):
            return [json.loads(line) for line in self._read("history.jsonl").splitlines()]

    def save_weights(self, model: CTRModel, name: str = "weights.npz") -> Path:
        """Writes every weight of the model, in the order of `model.weights`, atomically."""
        path = self.path / name
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp.npz")
        # One array at a time: a table is large, and two copies of it larger.
        arrays = _LazyArrays(model.weights)
        try:
            _write_npz(beside, arrays)
            os.replace(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise _cannot_write(path, error) from None
        return path

    def load_weights(self, model: CTRModel, name: str = "weights.npz") -> None:
        """Reads into a model of the same config and spec what `save_weights` wrote.

        Raises:
            ConfigError: no weights here, damaged ones, or another model's.
        """
        path = self.path / name
        if not path.exists():
            raise _not_there(path)
        with _whole(path), np.load(path) as arrays:
            names = _weight_names(model.weights)
            saved = list(arrays.files)
            if saved != names:
                differing = sorted(set(saved) ^ set(names))[:3]
                raise ConfigError(
                    "weights belong to the model that config.yaml describes",
                    f"{path} differs in {differing}",
                    "Train again, or open it with the version of clickparity that trained it.",
                )
            for key, weight in zip(names, model.weights, strict=True):
                value = arrays[key]
                if tuple(value.shape) != tuple(weight.shape):
                    raise ConfigError(
                        "weights have the shapes of the model that config.yaml describes",
                        f"{key}: {value.shape} in {path}, {tuple(weight.shape)} in the model",
                        "The data's vocabulary changed: train again.",
                    )
                weight.assign(value)

    def load_model(self, dropout: float | None = None) -> CTRModel:
        """The trained model in float32, whatever precision it was trained in.

        Args:
            dropout: overrides the config's; 0 for parity checks.

        Raises:
            ConfigError: the run is not trained yet.
        """
        from models.zoo import build_model

        model = build_model(self.model_config, self.spec, dropout=dropout)
        self.load_weights(model)
        return model

    def finish(self) -> None:
        """Writes _SUCCESS: every step of the run is done; see `step_directory.is_finished`."""
        _write(self.path / SUCCESS, f"{self.fingerprint}\n")

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text()
        except OSError:
            raise _not_there(self.path / name) from None


class _LazyArrays:
    """Names and values of weights, each value copied out of TensorFlow when it is asked for."""

    def __init__(self, weights: list[Any]) -> None:
        self._weights = weights

    def __iter__(self) -> Any:
        for name, weight in zip(_weight_names(self._weights), self._weights, strict=True):
            yield name, weight.numpy()


def _weight_names(weights: list[Any]) -> list[str]:
    """Position and name; without the numbers that Keras counts up within one process."""
    stems = (re.sub(r"_\d+(?=[/:]|$)", "", weight.name) for weight in weights)
    return [f"{index:04d}:{stem}" for index, stem in enumerate(stems)]


def _write_npz(path: Path, arrays: _LazyArrays) -> None:
    with open(path, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, value in arrays:
                # A fixed date: the same weights are the same bytes.
                entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(value, order="C"))
        file.flush()
        os.fsync(file.fileno())


def _cannot_write(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        "the run directory must be writable",
        f"{path} ({error.strerror or error})",
        "Choose another --out, or mend its permissions.",
    )


_MAKERS = {
    "weights.npz": "clickparity train",
    "spec.json": "clickparity train",
    "training.json": "clickparity train",
    "metrics.json": "clickparity evaluate --run RUN_DIR",
    "parity.json": "clickparity parity --run RUN_DIR",
    "result.json": "clickparity run",
}


def _not_there(path: Path) -> ConfigError:
    maker = _MAKERS.get(path.name, "clickparity train")
    return ConfigError(f"the run must have {path.name}", f"{path} (missing)", f"Run: {maker}.")


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """While a file is read: an error of its format means that it is not as it was written.

    Raises:
        ConfigError: it is not, with what makes it anew.
    """
    try:
        yield
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            "a run's file must be as it was written",
            f"{path} ({type(error).__name__}: {error})",
            f"Delete it, then run: {_MAKERS.get(path.name, 'clickparity train')}.",
        ) from None


def _first_difference(run: RunDirectory, config: dict[str, Any], data_fingerprint: str) -> str:
    if run.data_fingerprint != data_fingerprint:
        return f"data {run.data_fingerprint} against {data_fingerprint}"
    before, now = _flat(run.config), _flat(config)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            return f"{key}: {before.get(key)!r} against {now.get(key)!r}"
    return "their fingerprints differ"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    parts = (_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items())
    return {k: v for part in parts for k, v in part.items()}
