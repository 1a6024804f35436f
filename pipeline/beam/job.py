"""One Beam job: our options and defaults around a pipeline, and our errors out of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.beam.worker_environment import worker_environment
from pipeline.errors import ClickparityError

__all__ = ["run_job"]


def run_job(
    beam_options: Sequence[str],
    scratch: Path,
    build: Callable[[beam.Pipeline], None],
    shown: AbstractContextManager[None],
) -> None:
    """Builds a pipeline, runs it and waits for its end.

    Local runs use Beam's in-process FnApiRunner (DirectRunner would first try to download another); any
    `--runner` passes through.

    Args:
        beam_options: Beam's own, e.g. ["--direct_num_workers=2"].
        scratch: an existing directory that the caller clears away; Beam's temporary files go there.
        build: adds the steps.
        shown: progress, open while the pipeline runs.

    Raises:
        ClickparityError: what a step raised, without Beam's wrapping.
    """
    options = PipelineOptions(list(beam_options))
    options.view_as(SetupOptions).save_main_session = False
    chosen = options.get_all_options().get("runner")
    pipeline = beam.Pipeline(runner=chosen or FnApiRunner(), options=options)
    # Beam removes this folder at the end of a run, which a killed one never reaches: in the staging
    # directory the next start clears it away.
    os.rmdir(pipeline.local_tempdir)
    pipeline.local_tempdir = tempfile.mkdtemp(prefix="beam-", dir=scratch)
    build(pipeline)
    try:
        with worker_environment(options), shown:
            pipeline.run().wait_until_finish()
    except Exception as error:
        raise _unwrapped(error) from error


def _unwrapped(error: BaseException) -> BaseException:
    """Our own error out of Beam's wrapping (it re-raises with the stage name appended)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ClickparityError):
            return type(seen)(seen.rule, seen.received, seen.remedy)
        seen = seen.__cause__ or seen.__context__
    return error
