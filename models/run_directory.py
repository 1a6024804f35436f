"""Everything one training leaves behind, written and read back in one place.

    RUN_DIR/
      config.yaml        the sections as last used, the data, and the fingerprint of the model
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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import yaml

from models.config.calibration import CalibrationConfig
from models.config.model import ModelConfig, parse_model_config
from models.config.train import TrainConfig, parse_train_config
from pipeline.errors import ClickparityError, ConfigError
from pipeline.machine_faults import MachineError, machine_error
from pipeline.paths import local_path
from pipeline.records.encoded import EncodedSpec
from pipeline.reports import Report
from pipeline.step_directory import SUCCESS, fingerprint_of, write_atomically
from pipeline.strict_config import Changes, options_that_change

if TYPE_CHECKING:
    from models.zoo.base import CTRModel

__all__ = ["RunDirectory", "find_run", "run_fingerprint", "weights_identity"]

_FORMAT = 2  # of config.yaml; 1 had no number, and a fingerprint over options that change nothing
_AnyReport = TypeVar("_AnyReport", bound=Report)


def run_fingerprint(config: Mapping[str, Any], data_fingerprint: str) -> str:
    """16 hex digits over some options and the data that they are used on, whatever the key order."""
    return fingerprint_of(config, data_fingerprint)


def weights_identity(model: ModelConfig, train: TrainConfig, data_fingerprint: str) -> str:
    """The id of a run: of its data and of the options that change a weight, and of nothing else."""
    sections = {c.label: options_that_change(c, Changes.WEIGHTS) for c in (model, train)}
    return run_fingerprint(sections, data_fingerprint)


def find_run(runs: Path, run_id: str) -> Path:
    """RUNS/<run id>, or another directory there that holds the same training.

    Earlier versions gave a run another id: its weights are found by what they depend on. Where there
    are several, one whose training is finished, and the newest, is taken.
    """
    goal = runs / run_id
    if (goal / "config.yaml").exists():
        return goal
    found: list[tuple[bool, float, Path]] = []
    for config in runs.glob("*/config.yaml"):
        with contextlib.suppress(ConfigError):  # not ours to read: so not this run
            run = RunDirectory.open(config.parent)
            if run.weights_identity == run_id:
                found.append((run.is_trained, config.stat().st_mtime, run.path))
    return max(found)[2] if found else goal


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
        config: the sections as they were last used ("model", "train", ...).
        data_fingerprint: of the data directory that the run trains on.
        data_path: where that directory is.
        fingerprint: of the model that the run comes to: its weights and how they are calibrated.
        format: of config.yaml.
    """

    path: Path
    config: dict[str, Any]
    data_fingerprint: str
    data_path: str
    fingerprint: str
    format: int = _FORMAT

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        data_fingerprint: str,
        data_path: str | Path,
    ) -> RunDirectory:
        """Makes the directory, or opens it when it already belongs to the same training.

        Options that change no weight may differ from those of the last time: they are kept instead.

        Args:
            path: where.
            config: plain data; needs a "model" section for `load_model` and usually has "train".
            data_fingerprint: `DataDirectory.fingerprint`.
            data_path: `DataDirectory.path`.

        Raises:
            ConfigError: `path` holds another run, is a file, or cannot be written.
        """
        plain: dict[str, Any] = json.loads(json.dumps(config, default=str))
        run = cls(
            local_path(path, "a run directory"),
            plain,
            data_fingerprint,
            os.path.abspath(data_path),
            "",
        )
        run = dataclasses.replace(run, fingerprint=run.model_identity)
        if (run.path / "config.yaml").exists():
            before = cls.open(path)
            if before.weights_identity != run.weights_identity:
                raise ConfigError(
                    "a run directory belongs to one training on one data set",
                    f"{path} holds run {before.fingerprint}, this is run {run.fingerprint}"
                    f" ({_first_difference(before, run)})",
                    "Choose another --out, or delete that directory.",
                )
            if before.model_identity == run.model_identity:
                # An earlier version gave the same model another name, under which it may be live.
                run = dataclasses.replace(run, fingerprint=before.fingerprint)
            if before == run:
                return before
        try:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            run.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise _cannot_write(run.path, error) from None
        run.save_config()
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Opens a directory that `create` made, by this version or an earlier one.

        Raises:
            ConfigError: it is none, or a later version made it.
        """
        path = Path(path)
        try:
            document = yaml.safe_load((path / "config.yaml").read_text())
            found = cls(
                path,
                document["config"],
                document["data"]["fingerprint"],
                _data_path(path, document["data"]),
                document["fingerprint"],
                document.get("format", 1),
            )
        except (OSError, KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
            raise ConfigError(
                "a run directory holds a config.yaml",
                f"{path} ({type(error).__name__})",
                "Make one with: clickparity train --data DATA_DIR --out RUN_DIR.",
            ) from None
        if found.format not in range(1, _FORMAT + 1):
            raise ConfigError(
                f"a run directory must be of a format that this version reads, 1 to {_FORMAT}",
                f"{path} (format {found.format!r})",
                "Open it with the version of clickparity that made it, or a later one.",
            )
        return found

    def with_sections(self, **sections: Mapping[str, Any]) -> RunDirectory:
        """The same run with some sections of its config replaced; `save_config` keeps them."""
        return dataclasses.replace(self, config={**self.config, **sections})

    def save_config(self) -> None:
        """Writes config.yaml. Inside a work directory the data's path is kept relative to the run."""
        data, run = Path(self.data_path), Path(os.path.abspath(self.path))
        is_beside = data.is_relative_to(run.parent.parent)
        document = {
            "format": self.format,
            "fingerprint": self.fingerprint,
            "data": {
                "path": os.path.relpath(data, run) if is_beside else str(data),
                "fingerprint": self.data_fingerprint,
            },
            "config": self.config,
        }
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        _write(self.path / "config.yaml", text)

    @property
    def weights_identity(self) -> str:
        """Of what its weights depend on; runs that agree in it are one training."""
        return weights_identity(self.model_config, self.train_config, self.data_fingerprint)

    @property
    def model_identity(self) -> str:
        """Of what its answers depend on: the weights, and how they are calibrated."""
        section = options_that_change(self.calibration_config, Changes.CALIBRATION)
        return fingerprint_of("model", self.weights_identity, section)

    @functools.cached_property
    def calibration_config(self) -> CalibrationConfig:
        """The "calibration" section, validated."""
        return CalibrationConfig.model_validate(self.config.get("calibration") or {})

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
        """Writes metrics.json, calibration.json, parity.json and their like; an object with a seal.

        Raises:
            ValueError: a NaN or an infinity, which JSON cannot say.
        """
        plain = json.loads(json.dumps(value, allow_nan=False))
        if isinstance(plain, dict):
            plain[_SEAL] = _seal(plain)
        text = json.dumps(plain, indent=2, sort_keys=True)
        _write(self.path / name, f"{text}\n")
        return self.path / name

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote.

        Raises:
            ConfigError: the file is not there or damaged, with what makes it.
        """
        with _whole(self.path / name):
            found = json.loads(self._read(name))
            # Earlier versions wrote no seal.
            if isinstance(found, dict) and found.pop(_SEAL, seal := _seal(found)) != seal:
                raise ValueError("its contents are not those of its seal")
            return found

    def read_report(self, name: str, kind: type[_AnyReport]) -> _AnyReport:
        """A report as `write_json` wrote its `to_json`.

        Raises:
            ConfigError: the file is not there, damaged, or lacks something, with what makes it.
        """
        with _whole(self.path / name):
            return kind.from_json(self.read_json(name))

    def has(self, name: str) -> bool:
        """Whether a file of the run exists."""
        return (self.path / name).exists()

    @property
    def calibration_digest(self) -> str:
        """Of what calibration.json does to a logit; "" when there is none.

        Raises:
            ConfigError: the file is damaged.
        """
        if not self.has("calibration.json"):
            return ""
        with _whole(self.path / "calibration.json"):
            return _seal(self.read_json("calibration.json")["calibration"])

    @property
    def weights_digest(self) -> str:
        """Of weights.npz: the name, size and checksum of each array; "" when there are none.

        Cheap: the file's directory holds the checksums, and whoever reads an array is held to its own.
        """
        with contextlib.suppress(OSError, zipfile.BadZipFile):
            with zipfile.ZipFile(self.path / "weights.npz") as archive:
                entries = [(e.filename, e.file_size, e.CRC) for e in archive.infolist()]
            return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
        return ""

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
                    f"Delete {self.path} and train again, or open it with the version of clickparity "
                    "that trained it.",
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


def _cannot_write(path: Path, error: OSError) -> ClickparityError:
    if isinstance(fault := machine_error(error, path), MachineError):
        return fault
    return ConfigError(
        "the run directory must be writable",
        f"{path} ({error.strerror or error})",
        "Choose another --out, or change its permissions.",
    )


_SEAL = "seal"


def _seal(document: Mapping[str, Any]) -> str:
    """SHA-256 of what a JSON file says but its seal: a flipped bit still reads as a number."""
    others = {key: value for key, value in document.items() if key != _SEAL}
    canonical = json.dumps(others, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


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


def _data_path(run: Path, data: Mapping[str, Any]) -> str:
    """Where a run's data is.

    Earlier versions kept the path as it was typed: perhaps relative to a folder that nobody is in any
    more, or in a work directory that was moved since.
    """
    written = Path(data["path"])
    beside_runs = run.parent.parent / "data" / str(data["fingerprint"])
    for found in (run / written, written, beside_runs):
        if found.exists():
            return os.path.abspath(found)
    return os.path.abspath(run / written)


def _first_difference(before: RunDirectory, now: RunDirectory) -> str:
    if before.data_fingerprint != now.data_fingerprint:
        return f"data {before.data_fingerprint} against {now.data_fingerprint}"
    old, new = _weight_options(before), _weight_options(now)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            return f"{key}: {old.get(key)!r} against {new.get(key)!r}"
    return "their fingerprints differ"


def _weight_options(run: RunDirectory) -> dict[str, Any]:
    sections = (run.model_config, run.train_config)
    return _flat({c.label: options_that_change(c, Changes.WEIGHTS) for c in sections})


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    parts = (_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items())
    return {k: v for part in parts for k, v in part.items()}
