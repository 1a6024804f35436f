"""The whole parity suite on real rows: Criteo's 1 TB log, the first of it, layer norm and batch norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.run_directory import RunDirectory
from pipeline.records.data_directory import DataDirectory
from tests.conftest import PARITY_BARS, kept_logging, without_replica_check

SETTINGS = (
    "schema=criteo",
    "model.hidden_units=[16]",
    "model.embedding_dim=4",
    "train.global_batch_size=512",
    # Parity is asked here: some thirty clicks in the test split do not tell a model from a constant.
    "gate.require_better_than_constant=false",
)


@pytest.fixture(scope="module")
def work(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `clickparity run` made of the rows with layer norm, and a batch-norm run beside it."""
    from jobs.config import load_run_config
    from jobs.scheduled_run import run_pipeline
    from jobs.steps import train_run
    from models.trained_run import TrainedRun
    from serving.run_steps import prove_run

    path = tmp_path_factory.mktemp("criteo")
    rows = sample_data / "criteo_terabyte_day0_10k" / "day_0.part.txt"
    with kept_logging():
        layer = run_pipeline(load_run_config(None, SETTINGS), [str(rows)], path).to_json()
    data = DataDirectory.open(layer["data"])
    config = load_run_config(None, [*SETTINGS, "model.norm=batch"])
    batch = train_run(data, config, path / "batch", progress=False)
    with without_replica_check():
        prove_run(batch, against=TrainedRun(layer["run"]))
    return {"layer": RunDirectory.open(layer["run"]), "batch": batch.run, "data": data}


def checks_of(run: RunDirectory) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in run.read_json("parity.json")["checks"]}


def test_layer_norm_holds_every_bar_on_real_rows(work: dict[str, Any]) -> None:
    data, found = work["data"], checks_of(work["layer"])
    assert data.summary["input_rows"] == 10_000
    assert {name: found[name]["bar"] for name in PARITY_BARS} == PARITY_BARS
    assert all(found[name]["passed"] for name in PARITY_BARS), found
    sizes = {"2", "7", "64", "512", "1000"}
    assert set(found["batch, served"]["details"]["by_batch_size"]) == sizes
    assert set(found["export"]["details"]["by_batch_size"]) == {"1", *sizes}
    assert work["layer"].read_json("parity.json")["passed"]


def test_batch_norm_is_measured_on_real_rows(work: dict[str, Any]) -> None:
    found = checks_of(work["batch"])
    for name in ("batch, served", "transform", "export", "server"):
        assert found[name]["passed"], found[name]
    assert found["mode"]["value"] > 1e-3
    company = found["batch, composition"]["details"]
    # 1,000 held-out rows: no batch of 4096 among them.
    assert set(company["by_batch_size"]) == {"1", "2", "8", "64", "512"}
    assert {"all clicks", "no click", "random"} <= company["by_composition"].keys()
    assert set(company["by_base_rate_factor"]) == {"0.25", "0.5", "1", "2", "4"}
    # A row alone has no variance: the gap there is the largest of all sizes.
    largest = {
        size: gaps["as trained"]["largest"] for size, gaps in company["by_batch_size"].items()
    }
    assert largest["512"] < largest["2"]
    assert found["norm health"]["details"]["reestimated_minus_as_trained"]["log_loss"]
    metric = found["metric"]["details"]
    assert metric["rows"] == work["data"].num_rows("test")
    interval = metric["differences"]["log_loss"]
    assert interval["low"] <= interval["estimate"] <= interval["high"]
