"""The tutorial is run: every file that it names is written, every command runs, in order.

What a command prints is held against the page loosely: the lines that the page shows come in that
order, "..." stands for anything, and a number for any number.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, fences

_NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"


class Reader:
    """Somebody who does what the page says, in a directory of their own.

    Args:
        directory: empty.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {"8500": _free_port(), "8501": _free_port()}
        self.background: list[subprocess.Popen[bytes]] = []
        (directory / "bin").mkdir()
        program = directory / "bin" / "clickparity"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobs.cli "$@"\n')
        program.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "COLUMNS": "100",
        }

    def run(self, command: list[str]) -> str:
        """What a command prints."""
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def start(self, command: str) -> None:
        """A server in the background; waits until both ports are open."""
        flags = f"--grpc-port {self.ports['8500']} --rest-port {self.ports['8501']}"
        with open(self.directory / "server.log", "wb") as log:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {command} {flags}"],
                cwd=self.directory,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.background.append(process)
        deadline = time.monotonic() + 120
        for port in self.ports.values():
            while not _is_open(port):
                assert process.poll() is None, (self.directory / "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline, "the server opens no port"
                time.sleep(0.2)

    def console(self, text: str) -> None:
        """A console block: each command, and what the page says that it prints."""
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            command = self.here(command)
            if command.endswith("&"):
                self.start(command.removesuffix("&").strip())
            else:
                check_output(self.run(["sh", "-c", command]), expected)

    def here(self, text: str) -> str:
        """The text with the ports of this reader's server."""
        for port, mine in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{mine}")
        return text

    def stop(self) -> None:
        """Ends the server."""
        for process in self.background:
            process.terminate()
            process.wait(timeout=60)


def check_output(printed: str, expected: str) -> None:
    """Fails unless the expected lines occur in what was printed, in that order."""
    lines = iter(" ".join(line.split()) for line in printed.splitlines())
    for wanted in expected.splitlines():
        wanted = " ".join(wanted.split())
        pattern = ".*".join(
            _NUMBER.join(map(re.escape, re.split(_NUMBER, part))) for part in wanted.split("...")
        )
        if wanted not in ("", "..."):
            found = any(re.fullmatch(pattern, line) for line in lines)
            assert found, f"not printed: {wanted!r}\n{printed}"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _is_open(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    found = Reader(tmp_path)
    yield found
    found.stop()


def test_the_tutorial_works(reader: Reader) -> None:
    done = []
    for fence in fences(DOCS / "tutorial.md"):
        if fence.title:
            (reader.directory / fence.title).write_text(fence.text)
        elif fence.language == "python":
            printed = reader.run([sys.executable, "-c", reader.here(fence.text)])
            done.append(printed.strip())
        elif fence.language == "console":
            reader.console(fence.text)
            done.append(fence.text.split("\n")[0])
    assert sum(line.startswith("$ clickparity") for line in done) >= 4
    assert 0 < float(done[-1]) < 1  # the last block asks over REST
    assert (reader.directory / "work" / "models" / "clicks" / "1" / "saved_model.pb").is_file()


@pytest.mark.parametrize(
    "printed, expected",
    [
        ("auc  0.71\n", "auc 0.65\n"),
        ("a\nb 1e-7\nc\n", "a\n...\nc\n"),
        ("published 77ab as version 3", "published ... as version 1"),
    ],
)
def test_loose_comparison_accepts_what_is_alike(printed: str, expected: str) -> None:
    check_output(printed, expected)


@pytest.mark.parametrize(
    "printed, expected", [("auc  none\n", "auc 0.65"), ("b\na\n", "a\nb\n"), ("", "anything")]
)
def test_loose_comparison_refuses_what_is_not(printed: str, expected: str) -> None:
    with pytest.raises(AssertionError, match="not printed"):
        check_output(printed, expected)
