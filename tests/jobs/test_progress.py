"""The progress of a Beam job, from the marks that its workers leave."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from jobs.show import progress
from jobs.show.progress import block_progress


def staging(tmp_path: Path) -> Path:
    for name in ("progress", "train", "test"):
        (tmp_path / name).mkdir()
    return tmp_path / "progress"


def last_state(stream: io.StringIO) -> str:
    """What the terminal shows in the end, without its control sequences."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    return [part for part in re.split(r"[\r\n]+", plain) if part.strip()][-1]


def until(stream: io.StringIO, text: str) -> str:
    """What is shown once it contains `text`; a loaded machine may take its time."""
    deadline = time.monotonic() + 30
    while not stream.getvalue().strip() or text not in last_state(stream):
        assert time.monotonic() < deadline, stream.getvalue()[-500:]
        time.sleep(0.05)
    return last_state(stream)


@pytest.mark.parametrize(
    "phase, prefix",
    [("times", "times"), ("statistics", "count"), ("encode", "encode"), ("score", "score")],
)
def test_a_terminal_shows_rows_rate_and_percent(phase: str, prefix: str, tmp_path: Path) -> None:
    marks, stream = staging(tmp_path), io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    with block_progress(phase, marks, 4, console):
        for i in range(3):
            (marks / f"{prefix}-{i}-1000").touch()
        (marks / "other-9-77").touch()
        between = until(stream, "3,000 rows")
        (marks / f"{prefix}-3-234").touch()
    assert phase in between
    percent = int(re.search(r"(\d+) %", between)[1])  # type: ignore[index]
    assert percent == (67 if phase == "encode" else 75)  # shards are still to be written
    rate = int(re.search(r"([\d,]+) rows/s", between)[1].replace(",", ""))  # type: ignore[index]
    assert 3000 / 35 < rate <= 3000 / 0.25
    end = last_state(stream)
    assert "100 %" in end
    assert "3,234 rows" in end


def test_encoding_is_at_its_end_when_the_shards_are_written(tmp_path: Path) -> None:
    marks, stream = staging(tmp_path), io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    with block_progress("encode", marks, 8, console):
        for i in range(8):
            (marks / f"encode-{i}-10").touch()
        (tmp_path / "train" / "part-00000-of-00003.tfrecord").touch()
        (tmp_path / "test" / "part-00000-of-00001.tfrecord").touch()
        (tmp_path / "train" / "part-00001-of-00003.tfrecord.4711").touch()  # being written
        until(stream, " 94 %")  # 8 blocks and half of the shards' share of 1, of 9


def test_a_log_gets_a_line_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    marks, stream = staging(tmp_path), io.StringIO()
    with block_progress("statistics", marks, 2, Console(file=stream, width=20)):
        (marks / "count-0-1500").touch()
        line = until(stream, "1,500 rows")
        assert re.fullmatch(r"statistics +50%  1,500 rows  [\d,]+ rows/s  \d+ s", line)
        monkeypatch.setattr(progress, "LOG_EVERY_S", 3600.0)
        time.sleep(0.6)
        quiet = stream.getvalue()
        time.sleep(0.6)
        assert stream.getvalue() == quiet
    (last,) = stream.getvalue().removeprefix(quiet).splitlines()
    assert last.startswith("statistics 100%  1,500 rows")


def test_a_job_that_fails_is_not_shown_as_done(tmp_path: Path) -> None:
    marks, stream = staging(tmp_path), io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)

    def fail() -> None:
        with block_progress("statistics", marks, 2, console):
            (marks / "count-0-1500").touch()
            until(stream, "1,500 rows")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "100 %" not in stream.getvalue()
