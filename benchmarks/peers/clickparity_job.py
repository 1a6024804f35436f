"""Our own preprocessing, timed by phase and, with --profile, by function.

python clickparity_job.py [--workers N] [--profile] OUT FILE...
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What the profile times, as module:attribute, in CPU seconds of the process while the function ran
# (TensorFlow's threads included; a busy machine disturbs them little). Nested calls count in both. A
# name that has moved is listed as gone instead of being counted as free.
PROFILED = (
    "pipeline.sources.text:_ChunkParser.__init__",
    "pipeline.sources.text:_ChunkParser._rows",
    "pipeline.sources.text_parsers:conform",
    "pipeline.sources.reading:bad_rows",
    "pipeline.preprocessing.count_pass:count_chunk",
    "pipeline.preprocessing.count_pass:value_counts",
    "pipeline.statistics.feature_statistics:NumericStatistics.of",
    "pipeline.preprocessing.count_pass:merge_counts",
    "pipeline.preprocessing.count_pass:partition_of",
    "pipeline.preprocessing.vocabulary_pass:merge_counts",
    "pipeline.preprocessing.vocabulary_pass:select_vocabulary",
    "pipeline.preprocessing.vocabulary_pass:write_vocabulary",
    "pipeline.sources.columns:code_columns",
    "pipeline.preprocessing.parsed_rows:code_counts",
    "pipeline.transform.feature_transform:FeatureTransform.__init__",
    "pipeline.transform.raw_rows:number_matrix",
    "pipeline.transform.feature_transform:FeatureTransform.encode_table",
    "pipeline.records.packed:RowLayout.pack",
    "pipeline.preprocessing.encode_pass:_encode_chunk",
    "pipeline.preprocessing.encode_pass:EncodeRows._spill",
    "pipeline.preprocessing.encode_pass:WriteShard.process",
    "pipeline.records.packed:write_packed",
)


class Profile:
    """Seconds and calls by function."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.gone: list[str] = []
        self._lock = threading.Lock()

    def install(self, name: str) -> None:
        """Times a function wherever it is called through its module or class."""
        module_name, attribute = name.split(":")
        try:
            owner: Any = importlib.import_module(module_name)
            *path, last = attribute.split(".")
            for part in path:
                owner = getattr(owner, part)
            raw = owner.__dict__[last]
        except (ImportError, AttributeError, KeyError):
            self.gone.append(name)
            return
        is_class_method = isinstance(raw, classmethod)
        function = raw.__func__ if is_class_method else raw

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                result = function(*args, **kwargs)
                # A generator works while it is consumed, not when it is called.
                return iter(list(result)) if hasattr(result, "send") else result
            finally:
                with self._lock:
                    spent = time.process_time() - start
                    self.seconds[name] = self.seconds.get(name, 0.0) + spent

        setattr(owner, last, classmethod(timed) if is_class_method else timed)


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    profile = Profile()
    from pipeline.preprocessing.job import preprocess
    from pipeline.schema import FeatureSchema

    if arguments.profile:
        for name in PROFILED:
            profile.install(name)
    phases = {"import": time.perf_counter() - start}

    @contextlib.contextmanager
    def timed(phase: str, marks: Path, num_blocks: int) -> Iterator[None]:
        began = time.perf_counter()
        yield
        phases[phase] = time.perf_counter() - began

    options = []
    if arguments.workers > 1:
        options = [
            f"--direct_num_workers={arguments.workers}",
            "--direct_running_mode=multi_processing",
        ]
    data = preprocess(
        FeatureSchema.load("criteo"),
        arguments.files,
        arguments.out,
        beam_options=options,
        progress=timed,
    )
    phases["rest"] = time.perf_counter() - start - sum(phases.values())
    rows = data.summary["input_rows"]
    functions = dict(sorted(profile.seconds.items(), key=lambda item: -item[1]))
    return {"rows": rows, "phases": phases, "functions": functions, "gone": profile.gone}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("out")
    parser.add_argument("files", nargs="+")
    result = main(parser.parse_args())
    sys.stdout.flush()
    print(json.dumps(result))
