"""`clickparity demo`: the whole product on a synthetic log, with a report."""

from __future__ import annotations

from jobs.demo.product import main

__all__ = ["main"]
