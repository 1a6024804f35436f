"""Where every input row went: the reject limit and summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ClickparityError, DataError
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.encode_pass import ShardResult
from pipeline.preprocessing.row_fates import RowFates
from pipeline.records.data_directory import SPLITS
from pipeline.statistics.feature_statistics import PartialStatistics

__all__ = ["check_rejects", "summarise"]


def check_rejects(partial: PartialStatistics, config: PreprocessConfig, staging: Path) -> None:
    """Stops a job whose input is not what it should be.

    Raises:
        DataError: nothing was read, too much was rejected, or no row is there to train on.
    """
    if not partial.input_rows:
        raise DataError("the input must have rows", "0 rows")
    rate = partial.rejected_rows / partial.input_rows
    if rate <= config.max_reject_rate and partial.rejected_rows < partial.input_rows:
        if not partial.split_rows["train"]:
            raise DataError(
                "the train split must have rows",
                ", ".join(f"{s} {partial.split_rows[s]}" for s in SPLITS),
                "Mend the schema's `split`, or preprocess more data.",
            )
        return
    reasons = "; ".join(f"{n} x {reason}" for reason, n in _by_count(partial)[:3])
    first = min((staging / "rejects").glob("*.jsonl"), default=None)
    example = first.read_text().split("\n", 1)[0][:300] if first else ""
    raise DataError(
        f"at most {config.max_reject_rate:.2%} of the rows may be unreadable (max_reject_rate)",
        f"{partial.rejected_rows} of {partial.input_rows} ({rate:.2%}): {reasons}",
        f"Does the schema fit the file? First reject: {example}",
    )


def summarise(
    files: Sequence[Any],
    partial: PartialStatistics,
    fates: RowFates,
    results: list[ShardResult],
    config: PreprocessConfig,
    transform_fingerprint: str,
) -> dict[str, Any]:
    """Where every input row went; raises when the sum does not come out."""
    # Sums of floats: always in the same order.
    results = sorted(results, key=lambda r: (r.split, r.shard))
    kept, read = fates.by_split, fates.read
    accounted = sum(kept) + fates.dropped + partial.rejected_rows
    written = {i: sum(r.rows for r in results if r.split == i) for i in range(3)}
    if accounted != read or read != partial.input_rows:
        raise ClickparityError(
            "every input row must be in exactly one place",
            f"{partial.input_rows} counted, {read} read again, {accounted} accounted for",
            "Did the input change while it was read? Start again.",
        )
    splits = {}
    for i, name in enumerate(SPLITS):
        mine = [r for r in results if r.split == i]
        weight = sum(r.weight for r in mine)
        splits[name] = {
            "input_rows": kept[i],
            "rows": written[i],
            "shards": len(mine),
            "weight": weight,
            "label_rate": sum(r.click_weight for r in mine) / weight if weight else 0.0,
        }
    return {
        "input_files": len(files),
        "input_bytes": sum(f.size for f in files),
        "input_rows": read,
        "rejected_rows": partial.rejected_rows,
        "reject_reasons": dict(_by_count(partial)[:20]),
        "dropped_by_sampling": fates.dropped,
        "splits": splits,
        "negative_keep_rate": config.negative_keep_rate,
        "layout": config.layout,
        "transform_fingerprint": transform_fingerprint,
        "sum_of_parts": accounted,
    }


def _by_count(partial: PartialStatistics) -> list[tuple[str, int]]:
    """(reason, rows), the most frequent first, in an order that depends on nothing else."""
    return sorted(partial.reasons.items(), key=lambda item: (-item[1], item[0]))
