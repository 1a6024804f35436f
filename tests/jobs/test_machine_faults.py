"""What the machine denies: one message with path, need and remedy; nothing is left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.conftest import SETTINGS, TinyWork
from tests.jobs.conftest import Outcome, files_below
from tests.small_disk import small_disk

if TYPE_CHECKING:
    from models.run_directory import RunDirectory
    from pipeline.records.data_directory import DataDirectory

Cli = Callable[..., Outcome]
TRAIN = [s for s in SETTINGS if s.startswith(("model.", "train."))]


def _left_behind(directory: Path) -> set[str]:
    """Files of a step that never ended."""
    return {f for f in files_below(directory) if "staging" in f or ".tmp" in f or "temp" in f}


def _said_full(outcome: Outcome, disk: Path) -> None:
    message = outcome.refused(1, "No space left on device", "bytes free", "Free space", str(disk))
    assert "Errno" not in message


@pytest.mark.parametrize("size", [4 << 10, 48 << 10, 150 << 10, 300 << 10])
def test_preprocess_on_a_full_disk(size: int, cli: Cli, tmp_path: Path, tiny_log: Path) -> None:
    argv = ["preprocess", "--schema", "synthetic", "--input", tiny_log / "*.csv", "--out"]
    with small_disk(tmp_path / "disk", size) as disk:
        outcome = cli(*argv, disk / "data", "--set", "preprocess.block_bytes=65536")
        assert files_below(disk) == set()
        _said_full(outcome, disk)


def test_score_on_a_full_disk(
    cli: Cli, tmp_path: Path, tiny_log: Path, layer_run: RunDirectory
) -> None:
    argv = ["score", "--model", layer_run.path / "export", "--input", tiny_log / "*.csv"]
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        _said_full(cli(*argv, "--out", disk / "scores"), disk)
        assert files_below(disk) == set()


def test_train_on_a_full_disk(cli: Cli, tmp_path: Path, tiny_data: DataDirectory) -> None:
    argv = ["train", "--data", tiny_data.path, "--set", *TRAIN]
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        outcome = cli(*argv, "--out", disk / "run")
        _said_full(outcome, disk)
        assert "bytes needed" in outcome.err
        assert _left_behind(disk) == set()
    with small_disk(tmp_path / "disk", 64 << 20) as disk:
        assert cli(*argv, "--out", disk / "run").code == 0


@pytest.mark.parametrize("room", [20 << 10, 200 << 10])
def test_parity_on_a_full_disk(
    room: int, cli: Cli, tmp_path: Path, layer_run: RunDirectory
) -> None:
    """The export that was there stays."""
    with small_disk(tmp_path / "disk", 64 << 20) as disk:
        run = disk / "run"
        shutil.copytree(layer_run.path, run)
        document = yaml.safe_load((run / "config.yaml").read_text())
        document["data"]["path"] = str(layer_run.data_path)
        (run / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        before = files_below(run)
        filler = disk / "filler"
        free = shutil.disk_usage(disk).free
        filler.write_bytes(bytes(free - room))
        _said_full(cli("parity", "--run", run, "--cpp-loader", "off"), disk)
        assert files_below(run) == before


def test_publish_on_a_full_disk(cli: Cli, tmp_path: Path, layer_run: RunDirectory) -> None:
    argv = ["publish", "--export", layer_run.path / "export", "--name", "ctr", "--models"]
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        cli(*argv, disk / "models").refused(1, "No space left on device", "bytes free", str(disk))
        assert {f for f in files_below(disk) if "lock" not in f} == set()


def test_synth_on_a_full_disk(cli: Cli, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        _said_full(cli("synth", "--out", disk / "log", "--rows", 20_000), disk)


def test_a_disk_that_is_mounted_for_reading_only(
    cli: Cli, tmp_path: Path, tiny_log: Path, tiny_work: TinyWork
) -> None:
    with small_disk(tmp_path / "disk", 64 << 10, "ro") as disk:
        cli("synth", "--out", disk / "log", "--rows", 20).refused(2, "Read-only", str(disk))
        out = cli(*tiny_work.arguments, "--workdir", disk / "work")
        out.refused(2, "Read-only", str(disk))


def test_a_file_system_without_locks(
    cli: Cli, tmp_path: Path, tiny_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    argv = ["preprocess", "--schema", "synthetic", "--input", tiny_log / "*.csv", "--out"]
    out = cli(*argv, tmp_path / "data")
    out.refused(2, "file locks", str(tmp_path), "No locks available", "NFS")
    assert files_below(tmp_path) == set()


def test_tables_beyond_the_memory_are_refused_before_anything_is_written(
    cli: Cli, tmp_path: Path, tiny_data: DataDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.table_memory.available_memory", lambda: 1000)
    argv = ["train", "--data", tiny_data.path, "--out", tmp_path / "run", "--set", *TRAIN]
    cli(*argv).refused(2, "must fit into memory", "1,000 available", "model.embedding.compression")


@pytest.mark.parametrize(
    "error, code, phrases",
    [
        (OSError(errno.EIO, "Input/output error", "/x/y"), 1, ["/x/y", "Input/output", "dmesg"]),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/tmp/y"), 1, ["/tmp/y", "quota"]),
        (OSError("1000 requested and 24 written"), 1, ["No space left", "bytes free"]),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, ["/x", "permissions"]),
        (RuntimeError("File \"/a/b.py\" OSError: [Errno 28] No space left [while running 'x']"), 1,
         ["No space left on device"]),
        (MemoryError(), 1, ["memory", "bytes available", "train.global_batch_size"]),
        (RuntimeError("numpy.core._exceptions._ArrayMemoryError: x MemoryError: Unable"), 1, ["memory"]),
    ],
)  # fmt: skip
def test_faults_from_anywhere_in_a_command(
    error: Exception,
    code: int,
    phrases: list[str],
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("pipeline.step_directory.make_writable", fails)
    cli("synth", "--out", tmp_path / "log", "--rows", 10).refused(code, *phrases)


def test_tensorflow_errors_of_the_machine_and_others() -> None:
    import tensorflow as tf

    from pipeline.machine_faults import machine_error

    full = tf.errors.ResourceExhaustedError(None, None, "/tmp/x/part-0; No space left on device")
    assert "/tmp/x/part-0" not in str(machine_error(full))  # there is no such folder
    found = str(machine_error(full, Path("/tmp/run"), 12_345))
    assert "/tmp/run (No space left on device; 12,345 bytes needed; " in found
    memory = tf.errors.ResourceExhaustedError(
        None, None, "OOM when allocating tensor with shape[9000000,16] and type float"
    )
    assert "OOM when allocating tensor with shape[9000000,16]" in str(machine_error(memory))
    assert machine_error(tf.errors.InvalidArgumentError(None, None, "shapes differ")) is None
    assert machine_error(ValueError("No space left on device")) is None


def test_a_bug_stays_a_traceback(monkeypatch: pytest.MonkeyPatch, cli: Cli, tmp_path: Path) -> None:
    def fails(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("pipeline.step_directory.make_writable", fails)
    with pytest.raises(KeyError):
        cli("synth", "--out", tmp_path / "log", "--rows", 10)
