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
