"""Errors that an operator can act on: the rule, the value received, the remedy.

Every error that a person must fix (a typo in a config, bad input data, a gate that said no)
is a `ClickparityError`; the command line prints its message without a traceback and exits with its
`exit_code`. Anything else is a bug or a passing fault: exit 1, with the traceback.
"""

from __future__ import annotations

import re

from pipeline.plain_text import plain, shortened

__all__ = [
    "ClickparityError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "GateError",
    "Interrupted",
    "reason_of",
]

_MOST_SHOWN = 2000  # characters of the value received


class ClickparityError(Exception):
    """One message with rule, value received and remedy.

    Args:
        rule: what must hold, as a sentence fragment ("groups must divide units").
        received: the value that broke the rule; left out of the message when None, cut when long. Control
            characters in a message are written out.
        remedy: what to do about it, as a sentence ("Try groups=20.").
    """

    exit_code = 1

    def __init__(self, rule: str, received: object = None, remedy: str = "") -> None:
        self.rule, self.received, self.remedy = rule, received, remedy
        got = "" if received is None else f"; got {shortened(str(received), _MOST_SHOWN)}"
        super().__init__(plain(f"{rule}{got}." + (f" {remedy}" if remedy else ""), lines=True))

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        """Survives pickling, which is how Beam carries an error out of a worker process."""
        return type(self), (self.rule, self.received, self.remedy)


class ConfigError(ClickparityError):
    """Wrong configuration or arguments: exit code 2, never retried."""

    exit_code = 2


class DivergedError(ConfigError):
    """A training's loss is no finite number any more: of many trainings, this one alone has failed."""


class GateError(ClickparityError):
    """A gate said no (parity, quality, drift): exit code 3, never retried."""

    exit_code = 3


class DataError(ClickparityError):
    """The input data is bad (empty, over its reject limit, contradicts the schema): exit code 4."""

    exit_code = 4


class Interrupted(Exception):  # noqa: N818 - nothing is wrong
    """SIGTERM came: the state is saved, and the same command goes on from it; exit code 143.

    Not a `ClickparityError`: who handles those must not take a request to stop for a failure.
    """

    exit_code = 143


def reason_of(error: Exception) -> str:
    """A library's error in a line: the first, without the graph's names that TensorFlow adds."""
    return re.sub(r"^\{\{.*?\}\}|\[Op:.*", "", str(error).split("\n")[0]).strip()
