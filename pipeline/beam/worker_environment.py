"""The environment of worker processes on this machine: they are many, so each is to be frugal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from pipeline.python_process import python_environment

__all__ = ["worker_environment"]

_FRUGAL = {
    # As many processes as cores: TensorFlow's own threads beside them would only wait for each other.
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    # A block's arrays of some MB are made and freed again and again: glibc keeps them instead of giving
    # them back to the kernel, which would clear each page anew.
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
}


@contextlib.contextmanager
def worker_environment(options: PipelineOptions) -> Iterator[None]:
    """Processes that Beam starts inside inherit it; what the user has set stays, and so does this process."""
    if options.view_as(DirectOptions).direct_running_mode != "multi_processing":
        yield
        return
    # Beam starts them with `python -m` from the working directory, which is to shadow nothing.
    added = {n: v for n, v in _FRUGAL.items() if n not in os.environ} | python_environment()
    before = {name: os.environ[name] for name in added if name in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        os.environ.update(before)
