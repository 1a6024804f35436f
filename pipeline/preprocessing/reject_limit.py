"""The reject limit of a job. Needs no Beam: a finished data directory is held against a new limit too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import DataError
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.records.data_directory import DataDirectory

__all__ = ["check_reject_rate", "finished_data"]


def check_reject_rate(
    input_rows: int, reasons: Mapping[str, int], rejected_rows: int, limit: float, directory: Path
) -> None:
    """Stops a job whose input is not what it should be.

    Args:
        input_rows: of which `rejected_rows` were rejected.
        reasons: rejected rows by reason.
        rejected_rows: all of them.
        limit: the share that may be rejected.
        directory: holds `rejects/`.

    Raises:
        DataError: too much was rejected.
    """
    rate = rejected_rows / input_rows
    if rate <= limit and rejected_rows < input_rows:
        return
    most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:3]
    first = min((directory / "rejects").glob("*.jsonl"), default=None)
    example = f" First reject: {first.read_text().partition(chr(10))[0][:300]}" if first else ""
    raise DataError(
        f"at most {limit:.2%} of the rows may be unreadable (max_reject_rate)",
        f"{rejected_rows} of {input_rows} ({rate:.2%}): "
        + "; ".join(f"{n} x {reason}" for reason, n in most),
        f"Does the schema fit the file?{example}",
    )


def finished_data(path: Path, config: PreprocessConfig) -> DataDirectory:
    """A finished data directory, held against a reject limit that may have changed since.

    Raises:
        DataError: it is damaged, or more was rejected than the limit allows.
    """
    data = DataDirectory.open(path)
    found = data.summary
    check_reject_rate(
        found["input_rows"],
        found["reject_reasons"],
        found["rejected_rows"],
        config.max_reject_rate,
        path,
    )
    return data
