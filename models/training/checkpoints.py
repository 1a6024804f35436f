"""Resumable states of a training: written whole or not at all, checked when read.

    checkpoints/step-0000001000/
      variables.index, variables.data-*   a tf.train.Checkpoint
      state.json                          the position in the data and what else is not a variable
      _SUCCESS                            name -> sha256 of the files above; written last

A state appears under its name by one rename. A newest one that does not match its hashes is
deleted, with a warning, in favour of the one before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipeline.errors import ConfigError
from pipeline.machine_faults import MachineError, machine_error
from pipeline.step_directory import flush_to_disk

__all__ = ["Checkpoints"]

_LOG = logging.getLogger(__name__)


class Checkpoints:
    """Saves and restores named trackables with a JSON state.

    Args:
        directory: made when missing.
        keep: how many of the newest states are kept.
        **trackables: what `tf.train.Checkpoint` takes; all their variables must exist already.
    """

    def __init__(self, directory: Path, keep: int, **trackables: Any) -> None:
        self.directory = directory
        self.keep = keep
        self._trackables = tuple(trackables.values())
        self._checkpoint = tf.train.Checkpoint(**trackables)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Writes the state of a step; older ones beyond `keep` are deleted afterwards.

        Args:
            step: global step, which names the state.
            state: plain data.

        Raises:
            ConfigError: the directory cannot be written.
            MachineError: the disk is full, say; nothing is left behind.
        """
        goal = self.directory / f"step-{step:010d}"
        beside = self.directory / f".{goal.name}.{os.getpid()}.tmp"
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            self._checkpoint.write(str(beside / "variables"))
            (beside / "state.json").write_text(json.dumps(state))
            hashes = {file.name: _sha256(file) for file in sorted(beside.iterdir())}
            marker = beside / "_SUCCESS"
            marker.write_text(json.dumps(hashes))
            for file in (*beside.iterdir(), beside):
                flush_to_disk(file)
            shutil.rmtree(goal, ignore_errors=True)  # a corrupt one of the same step
            os.replace(beside, goal)
            flush_to_disk(self.directory)
        except Exception as error:  # TensorFlow's writers have errors of their own for a full disk
            shutil.rmtree(beside, ignore_errors=True)
            fault = machine_error(error, self.directory, _bytes_of(self._trackables))
            if isinstance(error, OSError) and not isinstance(fault, MachineError):
                raise ConfigError(
                    "checkpoints must be writable",
                    f"{self.directory} ({error.strerror or error})",
                    "Free some space, or correct the permissions.",
                ) from None
            raise fault or error from error
        self._prune()
        return goal

    def restore(self) -> dict[str, Any] | None:
        """Reads the newest state that is whole into the trackables.

        Returns:
            Its JSON state; None when there is none, and the trackables are as they were.

        Raises:
            ConfigError: it is of another version, whose training had other variables.
        """
        for candidate in self._states()[::-1]:
            complaint = _complaint(candidate)
            if complaint is None:
                status = self._checkpoint.read(str(candidate / "variables"))
                try:
                    status.assert_existing_objects_matched()
                except AssertionError:
                    raise ConfigError(
                        "a checkpoint must hold every variable of the training",
                        f"{candidate}, which lacks some: another version made it",
                        f"Delete {self.directory} to train from the start.",
                    ) from None
                state: dict[str, Any] = json.loads((candidate / "state.json").read_text())
                return state
            _LOG.warning(
                "checkpoint %s is corrupt (%s); falling back to the one before it",
                candidate.name,
                complaint,
            )
            shutil.rmtree(candidate, ignore_errors=True)  # or it would count as the newest kept
        return None

    def _states(self) -> list[Path]:
        return sorted(self.directory.glob("step-*"))

    def _prune(self) -> None:
        for leftover in self.directory.glob(".step-*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)  # of a process that was killed
        for old in self._states()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)


def _bytes_of(trackables: Iterable[Any]) -> int:
    """What the variables of models and optimizers take, about what a state of them takes on the disk."""
    variables = [getattr(each, "variables", ()) for each in trackables]
    found = [v for each in variables for v in (each() if callable(each) else each)]
    return sum(v.shape.num_elements() * v.dtype.size for v in found)


def _complaint(state: Path) -> str | None:
    """Why a state cannot be used, or None."""
    try:
        hashes: dict[str, str] = json.loads((state / "_SUCCESS").read_text())
        for name, expected in hashes.items():
            if _sha256(state / name) != expected:
                return f"{name} does not match its hash"
    except (OSError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
