"""What a command writes to stderr: this project's log lines, as text or as JSON, without the libraries'.

The libraries' lines are shown with --verbose only: what matters of them comes as an exception.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Literal, TextIO

from pipeline.plain_text import plain

__all__ = ["FORMATS", "LogFormat", "logging_to_stderr"]

LogFormat = Literal["text", "json"]
FORMATS: tuple[LogFormat, ...] = ("text", "json")
_OWN = ("clickparity", "jobs", "experiments", "serving", "models", "pipeline")


@contextlib.contextmanager
def logging_to_stderr(*, verbose: bool = False, log_format: LogFormat = "text") -> Iterator[None]:
    """Sends log records to stderr until the block ends.

    Args:
        verbose: the libraries' records, too.
        log_format: "text": the message alone; "json": an object a line with time, level, logger and
            message, and so is whatever else is printed to stderr meanwhile.
    """
    handler = logging.StreamHandler(sys.stderr)
    if not verbose:
        # By the name of each record: levels do not do it, for some libraries set theirs when they are
        # imported, and others log to the root logger.
        handler.addFilter(lambda record: record.name.partition(".")[0] in _OWN)
    printed: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    handler.setFormatter(_PlainFormatter())
    if log_format == "json":
        handler.setFormatter(_JsonFormatter())
        printed = contextlib.redirect_stderr(_JsonLines(sys.stderr))
    root = logging.getLogger()
    before = root.level, root.handlers
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    try:
        with printed:
            yield
    finally:
        root.setLevel(before[0])
        root.handlers = before[1]


def _line(time_s: float, level: str, logger: str, message: str, **more: str) -> str:
    time = datetime.datetime.fromtimestamp(time_s, datetime.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level, "logger": logger, "message": message, **more})


class _PlainFormatter(logging.Formatter):
    """A record as text, its control characters written out."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record), lines=True)


class _JsonFormatter(logging.Formatter):
    """A record as a JSON object in a line."""

    def format(self, record: logging.LogRecord) -> str:
        more = {"exception": self.formatException(record.exc_info)} if record.exc_info else {}
        return _line(record.created, record.levelname, record.name, record.getMessage(), **more)


class _JsonLines(io.TextIOBase):
    """A stream whose every line becomes a record of the logger "clickparity"."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._rest = stream, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            now_s = datetime.datetime.now(datetime.UTC).timestamp()
            self._stream.write(_line(now_s, "INFO", "clickparity", line) + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()
