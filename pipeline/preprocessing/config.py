"""How to preprocess: what a run may choose beside the schema. Validated when it is read.

Needs no Beam and no TensorFlow, so that a run with nothing to do finds that out at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.errors import ConfigError
from pipeline.input_listing import InputListing
from pipeline.schema import FeatureSchema
from pipeline.step_directory import fingerprint_of
from pipeline.strict_config import Changes, StrictConfig, options_that_change

__all__ = ["PreprocessConfig", "data_fingerprint"]

FORMAT_VERSION = 2  # of the data directory; part of the fingerprint


class PreprocessConfig(StrictConfig):
    """Options of the Beam job.

    Attributes:
        seed: of the shuffle and of the down-sampling.
        negative_keep_rate: share of the negative training rows that are kept; the export folds the
            correction in (logit + ln rate).
        max_reject_rate: above this share of unreadable rows the job fails (exit 4).
        max_misfit_rate: above this share of values that do not fit the format of a datetime feature the
            job fails: the model would see them as missing.
        layout: `packed` records, or `examples`: one tf.Example a row for other TensorFlow tools.
        block_bytes: size of the pieces that text files are cut into. It decides the position of a
            row, and so is part of the fingerprint.
        shard_bytes: size of an output file.
        rows_per_record: rows in a packed record.
        num_partitions: per feature, how many parts its counts are merged in; memory is bounded by a part.
        parity_sample_rows: raw rows kept beside their encoding for the parity checks.
    """

    label: ClassVar[str] = "preprocess"
    changes: ClassVar[Changes] = Changes.DATA

    seed: int = 0
    negative_keep_rate: float = Field(1.0, gt=0, le=1)
    max_reject_rate: Annotated[float, Changes.GATE] = Field(0.01, ge=0, le=1)
    max_misfit_rate: Annotated[float, Changes.GATE] = Field(0.01, ge=0, le=1)
    layout: Literal["packed", "examples"] = "packed"
    block_bytes: int = Field(8 << 20, ge=1 << 10)
    shard_bytes: int = Field(64 << 20, ge=1 << 10)
    rows_per_record: int = Field(4096, ge=1, le=1 << 20)
    num_partitions: Annotated[int, Changes.NOTHING] = Field(8, ge=1, le=4096)
    parity_sample_rows: int = Field(1024, ge=1, le=100_000)


def data_fingerprint(
    schema: FeatureSchema,
    listing: InputListing,
    config: PreprocessConfig,
    base_statistics: str | Path | None = None,
) -> str:
    """Of everything that the data directory's bytes follow from.

    Args:
        schema: as written, patterns unresolved (the files decide the rest, and they are in).
        listing: the files.
        config: options.
        base_statistics: the statistics directory whose ids are kept.

    Raises:
        ConfigError: `base_statistics` is no statistics directory.
    """
    base = None
    if base_statistics is not None:
        path = Path(base_statistics) / "statistics.json"
        if not path.is_file():
            raise ConfigError(
                "--base-statistics must name a statistics directory",
                str(base_statistics),
                "Point at the `statistics` directory inside a data directory.",
            )
        vocabularies = sorted((path.parent / "vocabulary").glob("*.csv"))
        base = fingerprint_of(*(p.name + p.read_text() for p in (path, *vocabularies)))
    # Options that change no byte count as their defaults: the data of earlier versions is known again.
    options = PreprocessConfig().model_dump(mode="json")
    options |= options_that_change(config, Changes.DATA)
    return fingerprint_of(
        *(FORMAT_VERSION, schema.rules, schema.fingerprint()),
        *(listing.fingerprint_parts, options, base),
    )
