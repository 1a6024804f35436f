"""Where every input row went: the reject limit and summary.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import ClickparityError, DataError
from pipeline.input_listing import InputListing
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.encode_pass import ShardResult
from pipeline.preprocessing.reject_limit import check_reject_rate
from pipeline.preprocessing.row_fates import RowFates
from pipeline.records.data_directory import SPLITS
from pipeline.schema import DatetimeFeature, FeatureSchema
from pipeline.schema.time_format import EPOCH_SCALE, EPOCH_YEARS
from pipeline.statistics.feature_statistics import PartialStatistics
from pipeline.values.times import likely_format

__all__ = ["check_rejects", "check_times", "summarise"]


def check_rejects(partial: PartialStatistics, config: PreprocessConfig, staging: Path) -> None:
    """Stops a job whose input is not what it should be.

    Raises:
        DataError: nothing was read, too much was rejected, or no row is there to train on.
    """
    if not partial.input_rows:
        raise DataError("the input must have rows", "0 rows")
    check_reject_rate(
        partial.input_rows,
        partial.reasons,
        partial.rejected_rows,
        config.max_reject_rate,
        staging,
    )
    if not partial.split_rows["train"]:
        raise DataError(
            "the train split must have rows",
            ", ".join(f"{s} {partial.split_rows[s]}" for s in SPLITS),
            "Correct the schema's `split`, or preprocess more data.",
        )


def check_times(
    partial: PartialStatistics, schema: FeatureSchema, config: PreprocessConfig
) -> None:
    """Stops a job one of whose datetime features is of another format than the schema says.

    Raises:
        DataError: more of its values than `max_misfit_rate` allows do not fit.
    """
    formats = {f.name: f.format for f in schema.features if isinstance(f, DatetimeFeature)}
    for name, found in partial.times.items():
        if found.misfit_rate <= config.max_misfit_rate:
            continue
        likely = likely_format(found.example or "")
        first, last = EPOCH_YEARS
        span = f" between {first} and {last}" if formats[name] in EPOCH_SCALE else ""
        raise DataError(
            f"at most {config.max_misfit_rate:.2%} of the values of datetime feature {name!r} may not fit "
            f"its format {formats[name]}{span} (max_misfit_rate)",
            f"{found.misfits:,} of {found.present + found.misfits:,} "
            f"({found.misfit_rate:.2%}), {found.example!r} for one",
            f"Set `format: {likely}` for it." if likely else
            "Correct the feature's `format`, or list what means missing in `missing`.",
        )  # fmt: skip


def summarise(
    listing: InputListing,
    partial: PartialStatistics,
    fates: RowFates,
    results: list[ShardResult],
    config: PreprocessConfig,
    transform_fingerprint: str,
    rules: int,
) -> dict[str, Any]:
    """Where every input row went.

    Two pairs of counts must agree, each made at two places from two things: lines (or records) as the
    reader cut them in the statistics pass against the rows that the encode pass found a place for, with
    the rejects; and the examples that the encode pass made against those in the shards.

    Raises:
        ClickparityError: they do not.
    """
    # Sums of floats: always in the same order.
    results = sorted(results, key=lambda r: (r.split, r.shard))
    accounted = sum(fates.rows) + fates.dropped + partial.rejected_rows
    written = tuple(sum(r.rows for r in results if r.split == i) for i in range(3))
    if accounted != partial.input_rows:
        raise ClickparityError(
            "every input row must be in exactly one place",
            f"{partial.input_rows} read, {accounted} accounted for",
            "Start again; if it happens again, report it as a bug.",
        )
    if written != fates.examples:
        raise ClickparityError(
            "every example must be written to a shard, once",
            f"{fates.examples} made for {', '.join(SPLITS)}, {written} written",
            "Start again; if it happens again, report it as a bug.",
        )
    splits = {}
    for i, name in enumerate(SPLITS):
        mine = [r for r in results if r.split == i]
        weight = sum(r.weight for r in mine)
        splits[name] = {
            "input_rows": fates.rows[i],
            "rows": written[i],
            "shards": len(mine),
            "weight": weight,
            "label_rate": sum(r.click_weight for r in mine) / weight if weight else 0.0,
        }
    return {
        "input_files": len(listing.files),
        "input_bytes": listing.size,
        "input_rows": partial.input_rows,
        "rejected_rows": partial.rejected_rows,
        "reject_reasons": dict(_by_count(partial)[:20]),
        "dropped_by_sampling": fates.dropped,
        "splits": splits,
        "negative_keep_rate": config.negative_keep_rate,
        "layout": config.layout,
        "value_rules": rules,
        "transform_fingerprint": transform_fingerprint,
        "sum_of_parts": accounted,
    }


def _by_count(partial: PartialStatistics) -> list[tuple[str, int]]:
    """(reason, rows), the most frequent first, in an order that depends on nothing else."""
    return sorted(partial.reasons.items(), key=lambda item: (-item[1], item[0]))
