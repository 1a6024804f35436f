"""The command line, called in this process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import kept_logging

if TYPE_CHECKING:
    from models.run_directory import RunDirectory
    from pipeline.records.data_directory import DataDirectory


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """The one JSON object on stdout."""
        assert self.code == 0, self.err
        (line,) = self.out.splitlines()
        return json.loads(line)

    def refused(self, code: int, *phrases: str) -> str:
        """Asserts one message, no traceback, nothing on stdout; returns the message."""
        messages = [line for line in self.err.splitlines() if line.startswith("clickparity: ")]
        assert (self.code, len(messages), self.out) == (code, 1, ""), self.err
        assert "Traceback" not in self.err
        message = messages[0]
        assert self.err.rstrip().endswith(message), "the message is the last line"
        for phrase in phrases:
            assert phrase in message, f"{phrase!r} is not in: {message}"
        return message


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`cli("evaluate", "--run", path)` -> Outcome."""
    from jobs.cli import main

    def call(*argv: object) -> Outcome:
        capfd.readouterr()
        with kept_logging():
            code = main([str(a) for a in argv])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def files_below(directory: Path) -> set[str]:
    """Every file, as a path relative to `directory`."""
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir()}


def logits_in_memory(run: RunDirectory, data: DataDirectory, path: Path, limit: int) -> np.ndarray:
    """Calibrated logits of the first raw rows of a file, read as preprocessing reads them."""
    import tensorflow as tf

    from models.trained_run import TrainedRun
    from pipeline.input_listing import list_inputs
    from pipeline.sources import plan_blocks, read_block
    from serving.export.build import serving_module

    plan = plan_blocks(data.schema, list_inputs([str(path)]))
    table = pa.concat_tables(c.table for b in plan.blocks for c in read_block(b, plan.schema))
    few = table[:limit]
    numbers = np.stack([few[c].to_numpy() for c in data.schema.input_numbers], axis=1)
    texts = np.array([few[c].to_pylist() for c in data.schema.input_texts], object).T
    logits = serving_module(TrainedRun(run)).logits(
        tf.constant(numbers, tf.float32), tf.constant(texts)
    )
    return np.asarray(logits)
