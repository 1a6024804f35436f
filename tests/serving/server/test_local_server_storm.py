"""Thousands of requests, most of them bad: none ends the server, hangs, or gets a status that is its own.

make fuzz                                     100,000 requests
FUZZ_REQUESTS=20000 FUZZ_SEED=3 pytest -s tests/serving/server/test_local_server_storm.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.server_process import served
from models.run_directory import RunDirectory
from models.trained_run import TrainedRun
from pipeline.records.data_directory import DataDirectory
from pipeline.transform.parity_sample import real_rows
from serving.export.build import serving_module
from serving.parity.logits import logit_function
from tests.serving.server.bad_requests import Truth
from tests.serving.server.request_storm import run_storm
from tests.serving.server_fixtures import publish

MODEL = "ctr"
MAX_GROWTH_MB = 150.0
"""From after the first quarter to the end, whatever the number of requests: caches are full by then."""


@pytest.mark.timeout(3600)
def test_a_storm_of_bad_requests(
    layer_run: RunDirectory, tiny_data: DataDirectory, tmp_path: Path
) -> None:
    requests = int(os.environ.get("FUZZ_REQUESTS", "2000"))
    seed = int(os.environ.get("FUZZ_SEED", "0"))
    raw, encoded = real_rows(tiny_data, 128)
    module = serving_module(TrainedRun(layer_run))
    logits = module.calibration.logits(logit_function(module.model, training=False)(encoded))
    publish(layer_run.path / "export", tmp_path / "models", 1, MODEL)
    log = tmp_path / "serve.log"
    with served(tmp_path / "models", MODEL, log, timeout_s=120) as server:
        storm = run_storm(
            server,
            Truth(MODEL, raw, logits.numpy()),
            requests=requests,
            seed=seed,
        )
        print(f"\nseed {seed}: {storm}")
        assert not storm.findings, str(storm)
        assert storm.counts.total() == requests
        assert storm.resident_mb[-1] - storm.resident_mb[1] <= MAX_GROWTH_MB, str(storm)
    assert server.process.returncode == 0
