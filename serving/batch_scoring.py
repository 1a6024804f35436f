"""Batch prediction: a Beam job that scores files with an exported SavedModel.

The numbers are those of online serving: the same SavedModel, through TF Serving's own loader, its
`compact` signature. Files are read as the export's schema says, in the same blocks as preprocessing;
an element is a block, never a row. A block is scored in batches whose rows follow from the files alone,
so the number of workers changes no bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipeline.beam.job import run_job
from pipeline.errors import DataError
from pipeline.schema import FeatureSchema
from pipeline.sources import Block, Reject, read_block
from pipeline.step_directory import write_atomically
from pipeline.transform.raw_rows import raw_matrices

if TYPE_CHECKING:
    from serving.loader.model_session import ModelSession

__all__ = ["BATCH_SIZE", "OutputFormat", "ScorePlan", "check_reject_rate", "run_scoring"]

BATCH_SIZE = 4096  # at most
# A block's first batch is read with nothing to score beside it: the less of it the better.
_CHUNK_BYTES = 1 << 20
OutputFormat = Literal["parquet", "csv"]
Progress = Callable[[str, Path, int], Any]


@dataclasses.dataclass(frozen=True)
class ScorePlan:
    """What travels to every worker.

    Attributes:
        export_dir: the SavedModel.
        fingerprint: of the run that made it.
        schema: resolved against the files, inputs only.
        staging: where parts, rejects and marks of progress go.
        output: the format of the parts.
        num_blocks: how many there are; part of the names.
    """

    export_dir: str
    fingerprint: str
    schema: FeatureSchema
    staging: str
    output: OutputFormat
    num_blocks: int


@dataclasses.dataclass(frozen=True)
class ScoredBlock:
    """What became of a block's rows; its scores lie in the spill file `path`."""

    block: int
    file: str
    path: str
    rows: int
    rejected: int
    reasons: tuple[tuple[str, int], ...]


def run_scoring(
    plan: ScorePlan,
    blocks: Sequence[Block],
    *,
    beam_options: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Scores every block into `plan.staging`: parts and rejects.

    Args:
        plan: what travels to every worker.
        blocks: of the input files.
        beam_options: Beam's own.
        progress: called with ("score", directory of marks, number of blocks).

    Returns:
        Where every input row went.

    Raises:
        DataError: a file cannot be read to its end.
    """
    staging = Path(plan.staging)
    for name in ("spill", "rejects", "progress"):
        (staging / name).mkdir()

    def build(pipeline: beam.Pipeline) -> None:
        scored = (
            pipeline
            | "Blocks" >> beam.Create(list(blocks))
            | "Spread" >> beam.Reshuffle()
            | "Score" >> beam.ParDo(ScoreBlock(plan))
        )
        # The number of a row in its file is known once the blocks before it have been counted.
        everything = scored | "All" >> beam.combiners.ToList()
        _ = scored | "Write" >> beam.Map(_write_part, plan, beam.pvalue.AsSingleton(everything))
        _ = everything | "Save" >> beam.Map(_save_counts, str(staging / "counts.json"))

    shown: Any = contextlib.nullcontext()
    if progress is not None:
        shown = progress("score", staging / "progress", len(blocks))
    run_job(beam_options, staging / "spill", build, shown)
    counts = json.loads((staging / "counts.json").read_text())
    (staging / "counts.json").unlink()
    summary: dict[str, Any] = counts
    return summary


class ScoreBlock(beam.DoFn):
    """Block -> ScoredBlock; logits and row numbers go to a spill file, rejects to their own."""

    def __init__(self, plan: ScorePlan) -> None:
        self._plan = plan

    def process(self, block: Block) -> Iterator[ScoredBlock]:
        """Reads a block and scores its good rows; the next batch is read while one is scored."""
        plan, rows, scores, rejects = self._plan, [], [], []
        num_rows = 0
        for batch in _one_ahead(_batches(block, plan.schema)):
            num_rows += batch.num_rows
            rejects += batch.rejects
            if len(batch.row):
                model = _model(plan.export_dir, plan.fingerprint)
                answer = model.ask("compact", batch.inputs, ["logit", "probability"])
                rows.append(batch.row)
                scores.append(np.stack([answer["logit"], answer["probability"]], axis=1))
        path = os.path.join(plan.staging, "spill", f"{block.index:06d}.npz")
        empty = np.zeros([0, 2], np.float32)
        beside = f"{path}.{os.getpid()}.tmp.npz"
        np.savez(
            beside,
            row=np.concatenate([np.zeros(0, np.int64), *rows]),
            scores=np.concatenate([empty, *scores]),
        )
        os.replace(beside, path)
        reasons: Counter[str] = Counter()
        for reject in rejects:
            reasons[reject.kind] += reject.rows
        if rejects:
            lines = "".join(json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in rejects)
            name = f"block-{block.index:05d}.jsonl"
            write_atomically(Path(plan.staging) / "rejects" / name, lines)
        (Path(plan.staging) / "progress" / f"score-{block.index}-{num_rows}").touch()
        rejected = sum(reasons.values())
        counted = tuple(sorted(reasons.items()))
        yield ScoredBlock(block.index, block.path, path, num_rows, rejected, counted)


@functools.lru_cache(maxsize=1)
def _model(export_dir: str, fingerprint: str) -> ModelSession:
    """One loaded model a process; the fingerprint tells apart what a directory held at two times."""
    from serving.loader.model_session import ModelSession

    del fingerprint
    return ModelSession(export_dir)


@dataclasses.dataclass(frozen=True)
class _Batch:
    """What is scored in one call, and the input rows and rejects that were met on the way to it.

    Attributes:
        row: positions in the block, int64 [n]; n may be 0.
        inputs: of the signature `compact`.
    """

    row: np.ndarray
    inputs: dict[str, np.ndarray]
    num_rows: int
    rejects: list[Reject]


def _batches(block: Block, schema: FeatureSchema) -> Iterator[_Batch]:
    from pipeline.transform.raw_rows import RawRows

    for chunk in read_block(block, schema, chunk_bytes=_CHUNK_BYTES):
        row, num_rows, rejects = np.asarray(chunk.row, np.int64), chunk.num_rows, chunk.rejects
        for start in range(0, max(chunk.table.num_rows, 1), BATCH_SIZE):
            table = chunk.table.slice(start, BATCH_SIZE)
            inputs = RawRows(schema, *raw_matrices(table, schema)).compact()
            yield _Batch(row[start : start + BATCH_SIZE], inputs, num_rows, rejects)
            num_rows, rejects = 0, []


def _one_ahead(items: Iterable[_Batch]) -> Iterator[_Batch]:
    """Makes the next item in a thread while the caller works on the last one."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, iterator, end)
        while isinstance(item := following.result(), _Batch):
            following = pool.submit(next, iterator, end)
            yield item


def _write_part(scored: ScoredBlock, plan: ScorePlan, everything: list[ScoredBlock]) -> None:
    """A block's scores as a part with columns file, row, probability, logit."""
    before = [s for s in everything if s.file == scored.file and s.block < scored.block]
    with np.load(scored.path) as spilled:
        row, scores = spilled["row"] + sum(s.rows for s in before), spilled["scores"]
    if len(row):
        indices = pa.array(np.zeros(len(row), np.int32))
        file = pa.DictionaryArray.from_arrays(indices, pa.array([scored.file]))
        columns = {
            "file": file,
            "row": pa.array(row),
            "probability": pa.array(np.ascontiguousarray(scores[:, 1])),
            "logit": pa.array(np.ascontiguousarray(scores[:, 0])),
        }
        table = pa.table(columns)
        table = table.replace_schema_metadata({"model_fingerprint": plan.fingerprint})
        name = f"part-{scored.block:05d}-of-{plan.num_blocks:05d}.{plan.output}"
        path = os.path.join(plan.staging, name)
        beside = f"{path}.{os.getpid()}.tmp"
        if plan.output == "parquet":
            import pyarrow.parquet as pq

            pq.write_table(table, beside)
        else:
            import pyarrow.csv as csv

            plain = table.set_column(0, "file", table["file"].cast(pa.string()))
            csv.write_csv(plain, beside)
        os.replace(beside, path)
    os.remove(scored.path)


def _save_counts(everything: list[ScoredBlock], path: str) -> None:
    reasons: Counter[str] = Counter()
    for scored in everything:
        reasons.update(dict(scored.reasons))
    rows, rejected = sum(s.rows for s in everything), sum(s.rejected for s in everything)
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    counts = {
        "input_rows": rows,
        "scored_rows": rows - rejected,
        "rejected_rows": rejected,
        "reject_reasons": dict(ordered[:20]),
    }
    write_atomically(Path(path), json.dumps(counts))


def check_reject_rate(summary: dict[str, Any], limit: float) -> None:
    """Stops a job whose input is not what the model was trained on.

    Raises:
        DataError: nothing was scored, or too much was rejected.
    """
    rows, rejected = summary["input_rows"], summary["rejected_rows"]
    if rows and rejected < rows and rejected <= limit * rows:
        return
    reasons = "; ".join(f"{n} x {why}" for why, n in list(summary["reject_reasons"].items())[:3])
    raise DataError(
        f"at most {limit:.2%} of the rows may be unreadable (--max-reject-rate), and one must be good",
        f"{rejected} of {rows}: {reasons or 'no rows'}",
        "Is this the layout that the model was trained on? See schema.yaml in its assets.extra.",
    )
