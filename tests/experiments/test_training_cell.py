"""A cell that trains a network: what it leaves, and that it goes on from its checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cell import Cell, read_result
from experiments.cell_process import run_cell
from experiments.data_rows import data_rows, default_cluster
from models.run_directory import RunDirectory
from models.training.checkpoints import Checkpoints
from pipeline.errors import DivergedError
from pipeline.preprocessing.config import PreprocessConfig
from pipeline.preprocessing.job import preprocess
from pipeline.records.data_directory import DataDirectory
from pipeline.records.segments import segment_columns
from pipeline.schema import FeatureSchema

TRAIN = {"global_batch_size": 256, "epochs": 2, "learning_rate": 0.01, "loss": "pos_weight"}
SECTIONS = {"model": {"name": "dcn_v2", "hidden_units": [8], "embedding_dim": 4}, "train": TRAIN}


@pytest.fixture(scope="module")
def data(tiny_log: Path, tmp_path_factory: pytest.TempPathFactory) -> DataDirectory:
    raw = FeatureSchema.load("synthetic").model_dump()
    raw["split"] = {"by": "key", "key": "c1", "validation": 0.2, "test": 0.2}
    schema = FeatureSchema.model_validate(raw)
    goal = tmp_path_factory.mktemp("cell") / "data"
    return preprocess(schema, [str(tiny_log / "*.csv")], goal, PreprocessConfig())


@pytest.fixture(scope="module")
def finished(data: DataDirectory, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cells")
    cell = Cell.of(data, SECTIONS, seed=3, splits=("validation", "test"))
    run_cell(cell, folder)
    return read_result(folder, cell)


def test_it_leaves_calibrated_and_raw_logits_and_what_they_cost(finished, data):
    scores = finished.scores("test")
    rows = data.num_rows("test")
    assert scores.logits.shape == scores.raw.shape == (rows,)
    # pos_weight lifts the raw logits: the calibration takes that away
    assert scores.raw.mean() > scores.logits.mean() + 0.5
    metrics = finished.metrics["test"]
    assert 0.8 < metrics["calibration_ratio"] < 1.25 < metrics["raw"]["calibration_ratio"]
    truth = metrics["truth"]
    assert truth["bayes_auc"] > metrics["auc"]
    assert truth["calibrated"]["regret"] < truth["raw"]["regret"]
    assert finished.cost["examples"] == 2 * data.num_rows("train")
    assert finished.training["epochs"] == 2 and len(finished.training["history"]) == 2
    assert finished.training["calibration"]["kind"] == "platt"


def test_rows_are_clustered_by_user_and_hour(finished, data):
    rows = finished.scores("test").rows
    assert set(rows.clusters) == {"user", "time"} and default_cluster(rows) == "user"
    columns = segment_columns(data, "test", ["c1", "time_hour", "time_weekday"])
    for key, names in (("user", ("c1",)), ("time", ("time_hour", "time_weekday"))):
        expected = ["/".join(map(str, v)) for v in zip(*(columns[n] for n in names), strict=True)]
        pairs = {*zip(rows.clusters[key].tolist(), expected, strict=True)}
        assert len({code for code, _ in pairs}) == len(pairs)
        if key == "time":  # unseen users share a few ids, hours do not
            assert len({text for _, text in pairs}) == len(pairs) > 24
    assert rows.truth is not None and 0 < rows.truth.min() < rows.truth.max() < 1
    np.testing.assert_array_equal(rows.label, data_rows(data, "test").label)


def test_a_killed_cell_goes_on_from_its_checkpoint_to_the_same_bits(
    finished, data, tmp_path, monkeypatch
):
    cell = Cell.of(
        data,
        {**SECTIONS, "train": {**TRAIN, "checkpoint_every_steps": 8}},
        seed=3,
        splits=("validation", "test"),
    )
    whole, saved = Checkpoints.save, []

    def dies_after_the_second(self, step, state):
        saved.append(step)
        path = whole(self, step, state)
        if len(saved) == 2:
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(Checkpoints, "save", dies_after_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, tmp_path)
    assert read_result(tmp_path, cell) is None
    work = tmp_path / "work" / cell.identity / "run"
    assert not RunDirectory.open(work).is_trained and list((work / "checkpoints").glob("step-*"))
    run_cell(cell, tmp_path)
    assert saved.count(8) == 1 and saved[0] == 8, "the first steps were not trained again"
    assert cell.identity == finished.cell.identity  # how often a state is saved changes no weight
    for split in cell.splits:
        one, other = (r.scores(split) for r in (read_result(tmp_path, cell), finished))
        np.testing.assert_array_equal(one.logits, other.logits)
    assert not work.exists()


def test_a_share_trains_on_that_share_of_every_epoch(data, tmp_path):
    cell = Cell.of(data, SECTIONS, share=0.25)
    run_cell(cell, tmp_path)
    result = read_result(tmp_path, cell)
    steps = -(-data.num_rows("train") // 256)
    assert result.training["global_step"] == 2 * -(-steps // 4)
    assert result.cost["examples"] == result.training["global_step"] * 256


def test_a_training_that_diverges_is_a_failure_of_its_own(data, tmp_path):
    train = {**TRAIN, "learning_rate": 1e30, "loss": "bce"}
    with pytest.raises(DivergedError, match=r"must (stay|be) finite"):
        run_cell(Cell.of(data, {**SECTIONS, "train": train}), tmp_path)


def test_its_config_is_kept_beside_it(finished):
    kept = json.loads((finished.path / "cell.json").read_text())
    assert Cell.from_json(kept) == finished.cell
