"""The Beam job: raw click logs -> a data directory. Statistics pass, encode pass, splits, rejects, summary.

An element of a PCollection is a block or a few numbers, never a row.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from pipeline.beam.job import run_job
from pipeline.input_listing import InputListing, list_inputs
from pipeline.paths import local_path
from pipeline.preprocessing.accounting import check_rejects, check_times, summarise
from pipeline.preprocessing.config import PreprocessConfig, data_fingerprint
from pipeline.preprocessing.count_pass import CountRows, MergePartials, write_pickle
from pipeline.preprocessing.encode_pass import EncodePlan, EncodeRows, ShardResult, WriteShard
from pipeline.preprocessing.reject_limit import finished_data
from pipeline.preprocessing.row_fates import RowFates, SplitTimes
from pipeline.preprocessing.split_times import minutes_of, split_times, time_alone
from pipeline.preprocessing.statistics_assembly import assemble_statistics, base_vocabularies
from pipeline.preprocessing.vocabulary_pass import build_vocabularies
from pipeline.records.data_directory import SPLITS, DataDirectory
from pipeline.schema import FeatureSchema
from pipeline.sources import InputPlan, plan_blocks
from pipeline.statistics.facets_proto import to_proto
from pipeline.statistics.feature_statistics import FeatureStatistics, PartialStatistics
from pipeline.step_directory import is_finished, step_directory
from pipeline.transform.parity_sample import collect_samples

__all__ = ["Progress", "preprocess"]

_SCRATCH = ("parsed", "spill", "progress", "sample")  # in the staging directory, gone at the end

Progress = Callable[[str, Path, int], Any]
"""Called as progress(phase, directory of marks, number of blocks); returns a context manager."""


def preprocess(
    schema: FeatureSchema,
    inputs: Sequence[str] | InputListing,
    out: str | Path,
    config: PreprocessConfig | None = None,
    *,
    base_statistics: str | Path | None = None,
    beam_options: Sequence[str] = (),
    progress: Progress | None = None,
) -> DataDirectory:
    """Runs the job, unless `out` already holds its result.

    Args:
        schema: patterns allowed.
        inputs: paths and globs, or the files listed already.
        out: the data directory; must be new, empty, or hold this very data set.
        config: options.
        base_statistics: a `statistics` directory whose ids are kept (new values are appended).
        beam_options: Beam's own options, e.g. ["--direct_num_workers=2"].
        progress: see `Progress`.

    Raises:
        ConfigError: bad arguments, or a schema that contradicts the files.
        DataError: too many rejects, no rows, a file that cannot be read or changes while it is read.
    """
    out, config, listing = local_path(out, "out"), config or PreprocessConfig(), list_inputs(inputs)
    fingerprint = data_fingerprint(schema, listing, config, base_statistics)
    if is_finished(out, fingerprint):
        return finished_data(out, config)
    plan = plan_blocks(schema, listing, block_bytes=config.block_bytes)
    with step_directory(out, fingerprint) as staging:
        for name in ("statistics/vocabulary", "rejects", *_SCRATCH, *SPLITS):
            (staging / name).mkdir(parents=True)
        job = _Job(plan, config, staging, list(beam_options), progress)
        times = job.split_times()
        partial = job.count(times, base_statistics)
        check_rejects(partial, config, staging)
        check_times(partial, plan.schema, config)
        job.encode(times, partial)
        for name in _SCRATCH:
            shutil.rmtree(staging / name)
        listing.check_unchanged()
    return DataDirectory.open(out)


class _Job:
    """The three pipelines over one plan and one staging directory."""

    def __init__(
        self,
        plan: InputPlan,
        config: PreprocessConfig,
        staging: Path,
        beam_options: list[str],
        progress: Progress | None,
    ) -> None:
        self.schema, self.blocks, self.listing = plan.schema, plan.blocks, plan.listing
        self.config, self.staging = config, staging
        self._options, self._progress = beam_options, progress

    def _run(self, phase: str, build: Callable[[beam.PCollection], None]) -> None:
        """One pipeline over all blocks."""

        def over_blocks(pipeline: beam.Pipeline) -> None:
            blocks = pipeline | "Blocks" >> beam.Create(list(self.blocks))
            build(blocks | "Spread" >> beam.Reshuffle())

        shown: Any = contextlib.nullcontext()
        if self._progress is not None:
            shown = self._progress(phase, self.staging / "progress", len(self.blocks))
        run_job(self._options, self.staging / "spill", over_blocks, shown)

    # --------------------------------------------------------------- split by time

    def split_times(self) -> SplitTimes | None:
        """Thresholds of a split by time, to the minute, from a pass over the time column alone."""
        schema = self.schema
        time = schema.time
        if schema.split.by != "time" or time is None:
            return None
        narrow = time_alone(schema, time)
        path, marks = str(self.staging / "minutes.pickle"), str(self.staging / "progress")

        def build(blocks: beam.PCollection) -> None:
            minutes = blocks | "Minutes" >> beam.FlatMap(minutes_of, narrow, time, marks)
            summed = minutes | "SumMinutes" >> beam.CombinePerKey(sum)
            _save(summed | "All" >> beam.combiners.ToList(), path)

        self._run("times", build)
        return split_times(sorted(_load(path)), schema.split, time)

    # --------------------------------------------------------------- statistics

    def count(
        self, times: SplitTimes | None, base_statistics: str | Path | None
    ) -> PartialStatistics:
        """The statistics pass; leaves statistics/ in the staging directory."""
        staging, schema = str(self.staging), self.schema
        base = base_vocabularies(schema, base_statistics) if base_statistics is not None else {}
        partial_path = str(self.staging / "partial.pickle")
        distinct_path = str(self.staging / "distinct.pickle")

        def build(blocks: beam.PCollection) -> None:
            count = CountRows(schema, times, self.config.num_partitions, staging)
            counted = blocks | "Count" >> beam.ParDo(count).with_outputs("partial", main="values")
            merged = counted.partial | "Merge" >> beam.CombineGlobally(MergePartials())
            merged | "SavePartial" >> beam.Map(write_pickle, partial_path)
            distinct = build_vocabularies(counted.values, schema, staging, base)
            _save(distinct | "AllDistinct" >> beam.combiners.ToList(), distinct_path)

        self._run("statistics", build)
        partial: PartialStatistics = _load(partial_path)
        statistics = assemble_statistics(
            schema, partial, dict(_load(distinct_path)), base, self.staging
        )
        statistics.save(self.staging / "statistics")
        proto = to_proto(statistics).SerializeToString(deterministic=True)
        (self.staging / "statistics" / "statistics.pb").write_bytes(proto)  # for Facets and TFDV
        return partial

    # --------------------------------------------------------------- encoding

    def encode(self, times: SplitTimes | None, partial: PartialStatistics) -> None:
        """The encode pass; leaves shards, parity sample, spec, schema and summary."""
        from pipeline.records.packed import RowLayout
        from pipeline.transform.feature_transform import encoded_spec

        schema, config, staging = self.schema, self.config, self.staging
        spec = encoded_spec(schema, FeatureStatistics.load(staging / "statistics"))
        width = RowLayout.of(spec).row_words * 4
        expected = [partial.split_rows[s] for s in SPLITS]
        clicks = float(partial.click_weight / partial.label_weight) if partial.label_weight else 0.0
        expected[0] = int(expected[0] * (clicks + (1 - clicks) * config.negative_keep_rate)) + 1
        sample_split = next((i for i in (2, 1, 0) if partial.split_rows[SPLITS[i]]), 0)
        plan = EncodePlan(
            schema=schema,
            spec=spec,
            config=config,
            times=times,
            staging=str(staging),
            num_shards=tuple(_num_shards(n, width, config) for n in expected),  # type: ignore[arg-type]
            sample_split=sample_split,
            sample_rate=1.5 * config.parity_sample_rows / max(expected[sample_split], 1),
        )
        results_path, fates_path = str(staging / "shards.pickle"), str(staging / "fates.pickle")

        def build(blocks: beam.PCollection) -> None:
            encoded = blocks | "Encode" >> beam.ParDo(EncodeRows(plan)).with_outputs(
                "count", main="pieces"
            )
            fates = encoded.count | "SumFates" >> beam.CombineGlobally(RowFates.sum)
            fates | "SaveFates" >> beam.Map(write_pickle, fates_path)
            everyone = [(i, s) for i, n in enumerate(plan.num_shards) for s in range(n)]
            shards = {"pieces": encoded.pieces}
            shards["all"] = blocks.pipeline | "Shards" >> beam.Create([(k, None) for k in everyone])
            written = (
                shards
                | "Gather" >> beam.CoGroupByKey()
                | "Pieces" >> beam.MapTuple(lambda key, found: (key, list(found["pieces"])))
                | "Write" >> beam.ParDo(WriteShard(plan))
            )
            _save(written | "Results" >> beam.combiners.ToList(), results_path)

        self._run("encode", build)
        results: list[ShardResult] = _load(results_path)
        summary = summarise(
            *(self.listing, partial, _load(fates_path), results, config),
            *(spec.fingerprint, schema.rules),
        )
        collect_samples(staging, RowLayout.of(spec), config.parity_sample_rows)
        (staging / "schema.yaml").write_text(schema.to_yaml())
        (staging / "spec.json").write_text(spec.to_json() + "\n")
        summary["files"] = _sizes(staging)
        (staging / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


# ------------------------------------------------------------------------------------- parts of the job


def _sizes(staging: Path) -> dict[str, int]:
    """Bytes of every file that readers of the directory need, by its path inside."""
    sizes = {}
    for file in sorted(staging.rglob("*")):
        name = file.relative_to(staging)
        # part-00000-of-00001.tfrecord.4711 is what a worker has left that died while it wrote.
        is_wanted = name.parts[0] not in (*_SCRATCH, "rejects") and not file.suffix[1:].isdigit()
        if file.is_file() and is_wanted:
            sizes[name.as_posix()] = file.stat().st_size
    return sizes


def _save(single: beam.PCollection, path: str) -> None:
    single | f"Save {Path(path).stem}" >> beam.Map(write_pickle, path)


def _load(path: str) -> Any:
    """Reads a result that a pipeline left in the staging directory, and removes it."""
    value = pickle.loads(Path(path).read_bytes())
    Path(path).unlink()
    return value


def _num_shards(rows: int, width: int, config: PreprocessConfig) -> int:
    """Files of about `shard_bytes`; at least 4 where there is enough to read in parallel."""
    by_size = -(-rows * width // config.shard_bytes)
    return max(by_size, 4 if rows >= 4 * config.rows_per_record else 1)
