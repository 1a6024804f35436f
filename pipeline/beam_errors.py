"""Errors of ours as they come out of a Beam pipeline."""

from __future__ import annotations

from pipeline.errors import ClickparityError

__all__ = ["unwrapped"]


def unwrapped(error: BaseException) -> BaseException:
    """Our own error out of Beam's wrapping (it re-raises with the stage name appended)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ClickparityError):
            return type(seen)(seen.rule, seen.received, seen.remedy)
        seen = seen.__cause__ or seen.__context__
    return error
