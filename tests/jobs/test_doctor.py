"""`clickparity doctor`: what it finds here, and what it says of machines that lack something."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import jobs.doctor as doctor
from jobs.doctor import Finding, Status
from tests.jobs.conftest import Outcome


def test_this_machine_can_run(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    result = cli("doctor", "--workdir", tmp_path / "not" / "there", "--json").result
    findings = {finding["name"]: finding for finding in result["findings"]}
    assert result["ok"]
    assert "tf-keras 2." in findings["TensorFlow"]["found"]
    assert findings["disk"]["found"].endswith(f"free in {tmp_path}")
    for finding in findings.values():
        assert bool(finding["remedy"]) is (finding["status"] != "ok"), finding
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow is not imported in these tests."""
    monkeypatch.setattr(doctor, "tensorflow", lambda: Finding("TensorFlow", Status.OK, "stub"))


@pytest.mark.usefixtures("quick")
def test_what_every_run_needs_is_exit_2_and_all_findings_are_listed(
    cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_beam = Finding("Apache Beam", Status.BROKEN, "not installed", "pip install apache-beam.")
    monkeypatch.setattr(doctor, "package", lambda *names: no_beam)
    outcome = cli("doctor", "--json")
    assert outcome.code == 2
    assert "Apache Beam: not installed" in outcome.err
    assert "pip install apache-beam." in outcome.err
    result = json.loads(outcome.out)
    assert not result["ok"]
    assert len(result["findings"]) > 10


@pytest.mark.usefixtures("quick")
def test_a_probe_that_fails_is_a_finding(
    cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> Finding:
        raise OSError("no /proc")

    monkeypatch.setattr(doctor, "memory", fails)
    outcome = cli("doctor")
    assert outcome.code == 0
    assert "could not be examined: OSError: no /proc" in outcome.out


@pytest.mark.parametrize(
    "source, found",
    [
        ("raise ImportError('libcuda.so.1: cannot open')", "libcuda.so.1: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "exit code -4"),
    ],
)
def test_a_tensorflow_that_does_not_start(
    source: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorflow.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor.tensorflow()
    assert finding.status is Status.BROKEN
    assert found in finding.found
    assert finding.remedy


def test_a_tensorflow_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", absent)
    assert doctor.tensorflow().status is Status.BROKEN
    assert doctor.package("Apache Beam", "apache-beam").status is Status.BROKEN
    assert doctor.extras("peers", ["polars"], "pip").status is Status.LACKS


@pytest.mark.parametrize(
    "environment, found",
    [
        ({"PATH": "/nowhere"}, "neither g++ nor clang++"),
        ({"PATH": "/nowhere", "CXX": "icpc -O2"}, "$CXX=icpc -O2 cannot be found"),
    ],
)
def test_no_compiler(environment: dict[str, str], found: str) -> None:
    finding = doctor.cpp_compiler(environment)
    assert (finding.status, finding.found) == (Status.LACKS, found)
    assert "C++ loader" in finding.remedy


@pytest.mark.parametrize(
    "script, status, found",
    [
        ("echo model server 2.19", Status.OK, "model server 2.19"),
        ("echo no license >&2; exit 3", Status.LACKS, "server fails: no license"),
        (None, Status.LACKS, "no server on PATH"),
    ],
)
def test_a_program(
    script: str | None, status: Status, found: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if script is not None:
        (tmp_path / "server").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "server").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), "/nowhere"]))
    finding = doctor.program("TF Serving", ["server"], "install it")
    assert (finding.status, finding.found) == (status, found)


def test_a_workdir_without_locks_or_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    assert doctor.file_system(tmp_path).status is Status.OK
    monkeypatch.setattr(doctor.fcntl, "flock", no_locks)
    finding = doctor.file_system(tmp_path)
    assert (finding.status, finding.found) == (Status.BROKEN, f"No locks available in {tmp_path}")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(doctor, "_LOW_DISK_GIB", 1e9)
    assert doctor.disk_space(tmp_path).status is Status.LACKS
    assert doctor.shared_memory(tmp_path / "none").status is Status.LACKS
