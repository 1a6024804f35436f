"""Beam's own options, checked before any work: Beam itself drops what it does not know with a warning."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

from pipeline.errors import ConfigError
from pipeline.strict_config import did_you_mean

__all__ = ["check_beam_options"]

_OURS = (
    "schema",
    "input",
    "out",
    "base_statistics",
    "config",
    "set",
    "workdir",
    "json",
    "verbose",
    "log_format",
)


def check_beam_options(options: Sequence[str]) -> None:
    """Refuses what is neither an option of ours nor of Beam.

    Args:
        options: what the command line did not know itself, e.g. ["--direct_num_workers=2"].

    Raises:
        ConfigError: an argument that is no option, an unknown option, a value that Beam refuses.
    """
    if not options:
        return
    if not options[0].startswith("--"):
        raise ConfigError("an argument without an option before it has no meaning", options[0])
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    log = logging.getLogger(PipelineOptions.__module__)
    level, usage = log.level, io.StringIO()
    log.setLevel(logging.CRITICAL + 1)  # the warning says less than our message
    try:
        with contextlib.redirect_stderr(usage):
            parsed = PipelineOptions(list(options))
            known = parsed.get_all_options()
            unknown = sorted(set(parsed.get_all_options(retain_unknown_options=True)) - set(known))
    except SystemExit:
        lines = usage.getvalue().strip().splitlines()
        complaint = lines[-1].partition("error: ")[2] if lines else " ".join(options)
        raise ConfigError("Beam must accept its options", complaint) from None
    finally:
        log.setLevel(level)
    if unknown:
        name = unknown[0].partition("=")[0]
        options_there = ["--" + n.replace("_", "-") for n in _OURS] + ["--" + n for n in known]
        near = did_you_mean(f"--{name}", options_there).partition("Allowed:")[0]
        raise ConfigError(
            "neither clickparity nor Beam has this option", f"--{name}", f"{near}See --help."
        )
    FileSystems.set_options(parsed)  # hdfs:// has its host among them
    if known.get("runner"):
        _check_runner(parsed, str(known["runner"]))


def _check_runner(options: Any, runner: str) -> None:
    """Makes the runner, and asks Beam whether it has all that it needs (Dataflow: a project, a bucket)."""
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
    from apache_beam.runners import create_runner

    try:
        complaints = PipelineOptionsValidator(options, create_runner(runner)).validate()
    except Exception as error:
        said, _, valid = str(error).partition(". Valid values are ")
        remedy = f"Allowed: {valid.partition(' or the fully')[0]}." if valid else ""
        if isinstance(error, ImportError):
            remedy = "Try: pip install 'apache-beam[gcp]'."
        raise ConfigError(
            "--runner must be a runner that Beam has here", f"{runner} ({said[:200]})", remedy
        ) from None
    if complaints:
        raise ConfigError(
            f"{runner} must have the options that it needs",
            " ".join(complaints),
            "Add them to the command line, such as --project=... --region=...",
        )
