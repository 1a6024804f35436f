"""Negatives left out of training are put back into the served probability: logit + ln(kept rate)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import tensorflow as tf

from jobs.config import load_run_config
from jobs.steps import train_run
from pipeline.preprocessing.job import preprocess
from pipeline.records.encoded import model_inputs
from pipeline.schema import FeatureSchema
from pipeline.transform.parity_sample import real_rows
from serving.export.build import build_export
from serving.loader.fresh_process import score_in_fresh_process
from tests.conftest import SETTINGS

KEPT = 0.25


def test_the_served_logit_is_the_models_plus_the_log_of_the_kept_rate(
    tiny_log: Path, tmp_path: Path
) -> None:
    config = load_run_config(
        None,
        [*SETTINGS, f"preprocess.negative_keep_rate={KEPT}", "calibration.kind=none"],
    )
    files = [str(tiny_log / "*.csv")]
    data = preprocess(FeatureSchema.load("synthetic"), files, tmp_path / "data", config.preprocess)
    assert data.summary["negative_keep_rate"] == KEPT
    assert data.summary["dropped_by_sampling"] > 0
    run = train_run(data, config, tmp_path / "run", progress=False)
    raw, encoded = real_rows(data, 64)
    inputs = {key: tf.constant(value) for key, value in model_inputs(encoded).items()}
    trained = np.asarray(run.model(inputs, training=False))
    (answer,) = score_in_fresh_process(build_export(run), [("serving_default", raw.by_name())])
    np.testing.assert_allclose(answer["logit"], trained + math.log(KEPT), atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        answer["probability"], 1 / (1 + np.exp(-answer["logit"])), atol=1e-6, rtol=0
    )
