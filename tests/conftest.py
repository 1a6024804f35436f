"""What many tests share: a tiny synthetic log, its data directory, a layer-norm and a batch-norm run.

Built once a session, on first use. Tests read them; what a test changes it copies first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import yaml

if TYPE_CHECKING:
    from models.run_directory import RunDirectory
    from pipeline.records.data_directory import DataDirectory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As models.keras2 does: a test file that imports TensorFlow Recommenders first must pass alone too.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# The same examples in every run, so that a commit that passed passes again; `make test-all` tries others.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

NUM_ROWS = 6000
SETTINGS = (
    "schema=synthetic",
    "model.hidden_units=[16]",
    "model.embedding_dim=4",
    "train.global_batch_size=256",
    "train.learning_rate=0.01",
    "train.checkpoint_every_steps=5",
    "preprocess.rows_per_record=512",
    "preprocess.block_bytes=262144",
)
PARITY_BARS = {  # DESIGN.md, section 4
    "mode": 0.0,
    "batch, served": 1e-5,
    "batch, trained": 1e-5,
    "transform": 0.0,
    "export": 1e-5,
    "server": 1e-5,
    "replica": 1e-5,
}


@contextlib.contextmanager
def kept_logging() -> Iterator[None]:
    """Undoes what the command line does to the logging of its process."""
    root = logging.getLogger()
    libraries = [
        logging.getLogger(n) for n in ("apache_beam", "tensorflow", "absl", "h5py", "matplotlib")
    ]
    before = root.level, list(root.handlers), list(root.filters), [x.level for x in libraries]
    filters = [list(h.filters) for h in root.handlers]
    try:
        yield
    finally:
        root.setLevel(before[0])
        root.handlers, root.filters = before[1], before[2]
        for handler, kept in zip(root.handlers, filters, strict=True):
            handler.filters = kept
        for library, level in zip(libraries, before[3], strict=True):
            library.setLevel(level)


@contextlib.contextmanager
def without_replica_check() -> Iterator[None]:
    """Parity without its slowest check, which takes a process of its own and has its own tests."""
    from serving.parity import replica
    from serving.parity.checks import Check

    real = replica.replica_equality
    replica.replica_equality = lambda *_, **__: Check("replica", "left out of this test", 0.0, 1e-5)
    try:
        yield
    finally:
        replica.replica_equality = real


@contextlib.contextmanager
def counted_work() -> Iterator[dict[str, int]]:
    """Counts what is opened, built and loaded while the block runs, in this process."""
    from models.run_directory import RunDirectory
    from pipeline.records.data_directory import DataDirectory
    from pipeline.transform.feature_transform import FeatureTransform

    made = {"data directory": 0, "transform": 0, "model": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            made[name] += 1
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        opened = counted("data directory", DataDirectory.open)
        patch.setattr(DataDirectory, "open", staticmethod(opened))
        built = counted("transform", FeatureTransform.__init__)
        patch.setattr(FeatureTransform, "__init__", built)
        patch.setattr(RunDirectory, "load_model", counted("model", RunDirectory.load_model))
        yield made


@dataclasses.dataclass(frozen=True)
class TinyWork:
    """A workdir in which `clickparity run` went through once.

    Attributes:
        path: the workdir.
        arguments: of that command, without --workdir and its value.
        result: what it returned.
        made: how often it opened the data directory, built the transform and loaded the model.
    """

    path: Path
    arguments: tuple[str, ...]
    result: dict[str, Any]
    made: dict[str, int]

    @property
    def run_path(self) -> Path:
        return Path(self.result["run"])


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of real rows; without it the test is skipped."""
    folder = os.environ.get("CLICKPARITY_SAMPLE_DATA")
    if not folder:
        pytest.skip("CLICKPARITY_SAMPLE_DATA is not set: no real rows to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two CSV files of a synthetic log with 20 % clicks."""
    from pipeline.synthetic.log import SyntheticLog, write_log

    directory = tmp_path_factory.mktemp("log")
    write_log(SyntheticLog(num_rows=NUM_ROWS, ctr=0.2), directory, num_files=2)
    return directory


@pytest.fixture(scope="session")
def tiny_work(tiny_log: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyWork:
    """`clickparity run` on the tiny log with a layer-norm DCN-v2, in this process."""
    from jobs.config import load_run_config
    from jobs.scheduled_run import run_pipeline

    path = tmp_path_factory.mktemp("work")
    pattern = str(tiny_log / "*.csv")
    with kept_logging(), counted_work() as made:
        result = run_pipeline(load_run_config(None, SETTINGS), [pattern], path)
    arguments = ("run", "--input", pattern, "--set", *SETTINGS)
    return TinyWork(path, arguments, result.to_json(), made)


@pytest.fixture(scope="session")
def tiny_data(tiny_work: TinyWork) -> DataDirectory:
    """The preprocessed tiny log."""
    from pipeline.records.data_directory import DataDirectory

    return DataDirectory.open(tiny_work.result["data"])


@pytest.fixture(scope="session")
def layer_run(tiny_work: TinyWork) -> RunDirectory:
    """The layer-norm run: trained, evaluated, proved and published."""
    from models.run_directory import RunDirectory

    return RunDirectory.open(tiny_work.run_path)


@pytest.fixture(scope="session")
def batch_run(tiny_data: DataDirectory, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The same with batch norm: trained, evaluated and measured by the parity checks."""
    from jobs.config import load_run_config
    from jobs.steps import train_run
    from models.run_steps import evaluate_run
    from serving.run_steps import prove_run

    config = load_run_config(None, [*SETTINGS, "model.norm=batch"])
    out = tmp_path_factory.mktemp("runs") / "batch"
    trained = train_run(tiny_data, config, out, progress=False)
    evaluate_run(trained)
    with without_replica_check():
        prove_run(trained)
    return trained.run


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Copies a run to change it: `copy_of(run, gate={"min_auc": 0.9}, data_path=...)`."""

    def copy(run: RunDirectory, data_path: Path | None = None, **sections: Any) -> RunDirectory:
        from models.run_directory import RunDirectory

        goal = tmp_path / "copied_run"
        shutil.copytree(run.path, goal)
        document = yaml.safe_load((goal / "config.yaml").read_text())
        for name, options in sections.items():
            document["config"][name] = {**(document["config"].get(name) or {}), **options}
        document["data"]["path"] = str(data_path or run.data_path)
        (goal / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        return RunDirectory.open(goal)

    return copy
