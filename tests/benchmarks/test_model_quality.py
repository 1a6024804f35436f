"""The quality benchmark's own arithmetic: bars, aggregation over seeds, resuming cell by cell."""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn.metrics import roc_auc_score

from benchmarks import model_quality
from benchmarks.model_quality import auc_difference, main, read_results, run_cells
from benchmarks.quality import plan
from benchmarks.quality.bars import (
    calibration_bars,
    curve_bars,
    curve_points,
    gap_closed,
    norm_distances,
)
from benchmarks.quality.baselines import lightgbm_logits, one_hot, tree_features
from benchmarks.quality.data import EncodedRows, data_directory
from benchmarks.quality.picture import draw
from benchmarks.quality.plan import (
    LOSSES,
    NETWORKS,
    NORMS,
    Cell,
    Log,
    calibration_cells,
    curve_cells,
    norm_cells,
    recipe,
)
from benchmarks.quality.tables import norms_table
from experiments.cell import Cell as EngineCell
from experiments.cell import rows_path
from experiments.scores import Rows, Scores
from jobs.config import load_run_config
from pipeline.records.encoded import EncodedSpec, IdFeature, SequenceFeature

SIZES = (100, 1000)


def result(rows, model, distance, seed=0, norm="layer"):
    cell = Cell("curve", rows, Log(rows, 10, 10), model, seed, norm=norm)
    return {"cell": cell.to_dict(), "auc": 0.84 - distance, "bayes_auc": 0.84, "distance": distance}


def difference(ours, other):
    gap = float(np.mean([a["auc"] - b["auc"] for a, b in zip(ours, other, strict=True)]))
    return gap, gap - 0.002, gap + 0.002


def points(changed=()):
    distances = {
        (100, "logistic_regression"): 0.12,
        (1000, "logistic_regression"): 0.10,
        (100, "lightgbm"): 0.09,
        (1000, "lightgbm"): 0.06,
        (100, "a"): 0.08,
        (1000, "a"): 0.04,
        (100, "b"): 0.09,
        (1000, "b"): 0.055,
        **dict(changed),
    }
    return curve_points([result(*key, value) for key, value in distances.items()], difference)


def holds(bars):
    return [bar.holds for bar in bars]


def test_every_bar_of_the_curve_holds_where_it_should():
    assert holds(curve_bars(points(), SIZES, "ab", 1000)) == [True] * 4
    assert gap_closed(points(), 1000, "a") == pytest.approx(0.6)


@pytest.mark.parametrize(
    "changed, failing",
    [
        ({(1000, "b"): 0.09}, [0, 3]),  # no better with ten times the data, and below LightGBM
        ({(1000, "a"): 0.051}, [1]),
        ({(1000, "a"): 0.050}, []),  # exactly half of the gap
        ({(100, "b"): 0.0919}, []),  # below LightGBM, within the interval
        ({(100, "b"): 0.0921}, [2]),
    ],
)
def test_a_bar_of_the_curve_fails_by_itself(changed, failing):
    found = holds(curve_bars(points(changed.items()), SIZES, "ab", 1000))
    assert [i for i, held in enumerate(found) if held is not True] == failing


def test_a_bar_that_lacks_a_cell_is_not_measured():
    incomplete = {key: point for key, point in points().items() if key != (1000, "b")}
    assert holds(curve_bars(incomplete, SIZES, "ab", 1000)) == [None, True, True, None]
    assert holds(curve_bars({}, SIZES, "ab", 1000)) == [None] * 4


def test_seeds_give_mean_deviation_and_an_interval_about_the_mean():
    cells = [result(1000, "lightgbm", d, seed) for seed, d in enumerate((0.06, 0.07))]
    cells += [result(1000, "a", d, seed) for seed, d in enumerate((0.03, 0.04, 0.05))]
    point = curve_points(cells, difference)[1000, "a"]
    assert (point.seeds, point.distance) == (3, pytest.approx(0.04))
    assert point.deviation == pytest.approx(0.01)
    # .03 and .03 against the trees of the same seed; the third has none
    assert point.against_lightgbm == pytest.approx((0.03, 0.028, 0.032))


def calibrated(ratio, error, clicks=12_000):
    return {
        "calibrated": {"prediction_over_truth": ratio, "calibration_error": error},
        "clicks": {"train": 5, "validation": clicks, "test": 12_000},
    }


@pytest.mark.parametrize(
    "last, wanted, expected",
    [
        (calibrated(0.9801, 0.0009), 2, [True, True, True]),
        (calibrated(1.021, 0.0009), 2, [False, True, True]),
        (calibrated(1.0, 0.001), 2, [True, False, True]),
        (calibrated(1.0, 0.0009, 9_999), 2, [True, True, False]),
        (calibrated(1.0, 0.0009), 3, [None, None, None]),
    ],
)
def test_the_bars_of_the_calibration(last, wanted, expected):
    cells = [calibrated(1.01, 0.0005), last]
    assert holds(calibration_bars(cells, wanted, 10_000)) == expected
    assert holds(calibration_bars([], wanted, 10_000)) == [None] * 3


def test_the_plan_is_what_was_asked_for():
    cells = curve_cells(quick=False)
    assert [c.rows for c in cells][:1] == [1_000_000]
    assert sorted({c.rows for c in cells}) == [100_000, 300_000, 1_000_000, 3_000_000]
    at_middle = [c for c in cells if c.rows == 1_000_000 and c.model in NETWORKS]
    assert len(at_middle) == 3 * len(NETWORKS)
    assert len(calibration_cells(quick=False)) == 2 * len(LOSSES)
    for model in ("lightgbm", "dcn"):
        drawn = Counter(c.rows for c in cells if c.model == model)
        assert drawn == {100_000: 3, 300_000: 3, 1_000_000: 3, 3_000_000: 1}
    norms = norm_cells(quick=False)
    assert len({(c.model, c.norm, c.seed) for c in norms}) == len(norms) == 3 * 8 * len(NORMS)
    shared = [c for c in norms if c in cells]
    assert {(c.rows, c.norm, c.seed) for c in shared} == {(1_000_000, "layer", s) for s in range(3)}
    assert len(shared) == 3 * len(NETWORKS)
    everything = list(dict.fromkeys([*cells, *norms, *calibration_cells(quick=False)]))
    assert len({c.name for c in everything}) == len(everything)
    assert all(json.loads(json.dumps(c.to_dict()))["model"] == c.model for c in everything)


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_recipe_is_a_valid_config(model, loss, norm):
    cell = Cell("calibration", 1, Log(1_000, 1, 1), model, loss=loss, norm=norm)
    sets = [
        f"{section}.{key}={json.dumps(value)}"
        for section, options in recipe(cell).items()
        for key, value in options.items()
    ]
    config = load_run_config(None, sets)
    assert config.model.name == model and config.model.norm.kind == norm
    assert config.train.loss.kind == loss.split()[0]


def test_the_table_of_normalizations_by_hand():
    cells = [result(100, "dcn", d, seed) for seed, d in enumerate((0.10, 0.11, 0.12))]
    cells += [result(100, "dlrm", 0.05), result(100, "dcn", 0.09, norm="batch")]
    distances = norm_distances(cells)
    assert distances["dcn", "layer"] == [0.10, 0.11, 0.12]
    text = norms_table(distances, 100)

    def numbers(name):
        line = next(line for line in text.split("\n") if name in line)
        return [word for word in line.split() if word[0].isdigit() or word in "±-"]

    assert NORMS == ("none", "layer", "variance_only", "batch")
    assert numbers("dcn") == ["-", "0.1100", "±", "0.0100", "-", "0.0900"]
    assert numbers("dlrm") == ["-", "0.0500", "-", "-"]
    # (.11 + .05) / 2; batch lacks dlrm, so that its mean would be of other networks
    assert numbers("mean of") == ["-", "0.0800", "-", "-"]
    assert "100 rows, seeds: 1 or 3" in text


def test_a_start_runs_every_cell_once_the_important_size_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    monkeypatch.setattr(model_quality, "run_cells", lambda cells, *_: asked.extend(cells) or [])
    monkeypatch.setattr(model_quality, "PEERS", {})  # as if all were installed
    main(["--workdir", str(tmp_path)])
    tables = (curve_cells, norm_cells, calibration_cells)
    assert len(asked) == len(set(asked)) and set(asked) == {
        cell for cells in tables for cell in cells(quick=False)
    }
    first = [c.rows == 1_000_000 for c in asked]
    count = 1 + 3 * (1 + len(NETWORKS))
    assert all(first[:count]) and asked[count].kind == "calibration"
    asked.clear()
    main(["--workdir", str(tmp_path), "--only", "norms", "--models", "dlrm"])
    assert [(c.norm, c.seed) for c in asked] == [(n, s) for s in range(3) for n in NORMS]


RUNNER = """
import numpy as np
from experiments.outcome import CellOutcome, SplitLogits

def run(cell, data, work):
    with open(cell.sections["journal"], "a") as journal:
        print(cell.sections["model"], file=journal)
    if cell.sections["model"] == "dcn_v2" and not (work / "tried").exists():
        (work / "tried").touch()
        raise RuntimeError("dcn_v2 failed: once")
    return CellOutcome({"test": SplitLogits.uncalibrated(np.linspace(-3, 0, 100))}, {}, 90)
"""


def test_a_second_start_runs_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    models = ("logistic_regression", "dcn_v2")
    cells = [Cell("curve", 100, Log(90, 10, 100), name) for name in models]
    journal, runner = tmp_path / "journal", tmp_path / "runner.py"
    runner.write_text(RUNNER)

    def prepared(log, workdir):
        assert (workdir / "data").is_dir()
        path = data_directory(workdir, log)
        path.mkdir(exist_ok=True)
        split = {"rows": 100, "shards": 1, "label_rate": 0.2, "weight": 100.0}
        splits = dict.fromkeys(("train", "validation", "test"), split)
        (path / "summary.json").write_text(json.dumps({"splits": splits}))
        (path / "_SUCCESS").write_text("log\n")
        rows = rows_path(workdir / "cells", "log", "test")
        rows.parent.mkdir(parents=True, exist_ok=True)
        label = (np.arange(100) % 5 == 0).astype(np.float32)
        Rows(label, np.ones(100, np.float32), truth=np.full(100, 0.2)).save(rows)

    def engine_cell(cell, data):
        sections = {"model": cell.model, "recipe": recipe(cell), "journal": str(journal)}
        return EngineCell.of(data, sections, runner=f"{runner}:run", name=cell.name)

    def ran():
        return journal.read_text().split()

    monkeypatch.setattr(model_quality, "engine_cell", engine_cell)
    assert read_results(cells, tmp_path) == []
    assert run_cells(cells, tmp_path, 1, prepared) == [cells[1].name]
    assert run_cells(cells, tmp_path, 1, prepared) == []
    assert run_cells(cells, tmp_path, 1, prepared) == []
    assert ran() == ["logistic_regression", "dcn_v2", "dcn_v2"]
    assert [r["cell"]["model"] for r in read_results(cells, tmp_path)] == list(models)
    monkeypatch.setitem(plan.TRAIN, "epochs", plan.TRAIN["epochs"] + 1)
    assert run_cells(cells, tmp_path, 1, prepared) == [cells[1].name]
    assert run_cells(cells, tmp_path, 1, prepared) == []
    assert ran()[3:] == ["dcn_v2"] * 2  # another recipe is another cell


def test_a_log_that_cannot_be_prepared_fails_its_own_cells(tmp_path: Path):
    cells = [Cell("curve", 100, Log(90, 10, 100), "dcn_v2")]

    def fails(log, workdir):
        raise RuntimeError("preparing failed: no room")

    assert run_cells(cells, tmp_path, 1, fails) == [cells[0].name]


def test_the_difference_to_lightgbm_is_paired_on_the_rows_both_scored():
    label = np.random.default_rng(0).random(5_000) < 0.2
    logits = {}
    for name, noise in (("good", 1.0), ("poor", 3.0)):
        logits[name] = label + np.random.default_rng(1).normal(0, noise, len(label))

    class Engine:
        def __init__(self, name):
            self.scores = lambda: Scores.of(label, logits[name])

    value, low, high = auc_difference(*([{"engine": Engine(n)}] for n in ("good", "poor")))
    expected = np.subtract(*(roc_auc_score(label, z) for z in logits.values()))
    assert value == pytest.approx(expected, abs=1e-12)
    assert 0 < low < value < high


def test_a_report_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["--report", "--workdir", str(tmp_path)]) == 0
    assert "not measured" in capsys.readouterr().out
    found = json.loads((tmp_path / "quality.json").read_text())
    assert {bar["holds"] for bar in found["bars"]} == {None}
    assert (tmp_path / "quality.png").stat().st_size > 0


def test_the_picture_shows_all_tables(tmp_path: Path):
    stage = {"prediction_over_truth": 5.0}
    cell = calibration_cells(quick=False)[0].to_dict()
    scored = [{"cell": cell, "raw": stage, "corrected": stage, "calibrated": stage}]
    measured = curve_points([result(n, "dlrm", 1 / n) for n in SIZES], difference)
    norms = {("dlrm", "layer"): [0.02, 0.03]}
    # Of the first network, of layer norm and of what is calibrated.
    blue = np.array([0x1F, 0x77, 0xB4]) / 255
    path = tmp_path / "picture.png"
    for drawn in itertools.product(({}, measured), ({}, norms), ([], scored)):
        draw(*drawn, path)
        is_blue = np.isclose(imread(path)[:, :, :3], blue, atol=1 / 512).all(axis=2)
        panels = (is_blue[:440, :500], is_blue[:440, 660:], is_blue[470:])  # of about 880 x 1,210
        assert tuple(panel.sum() > 30 for panel in panels) == tuple(map(bool, drawn))


def few_rows(labels):
    return EncodedRows(
        ids=np.array([[1, 3], [2, 0], [1, 3], [2, 700]], np.int32),
        numeric=np.array([[0.5], [-1.0], [2.0], [0.0]], np.float32),
        sequences={"tags": np.array([[1, 2], [0, 0], [2, 0], [1, 1]], np.int32)},
        label=np.array(labels, np.float32),
        weight=np.ones(4, np.float32),
        truth=np.full(4, 0.5),
    )


SPEC = EncodedSpec(
    ("n1",), (IdFeature("c1", 3), IdFeature("c2", 701)), (SequenceFeature("tags", 4, 2, "tags"),)
)


def test_one_hot_by_hand():
    matrix = one_hot(few_rows([0, 1, 0, 1]), SPEC).toarray()
    assert matrix.shape == (4, 3 + 701 + 4 + 1)
    # row 0: c1=1, c2=3, tags 1 and 2 half each, n1
    expected = np.zeros(709)
    expected[[1, 3 + 3, 704 + 1, 704 + 2, 708]] = [1, 1, 0.5, 0.5, 0.5]
    np.testing.assert_allclose(matrix[0], expected)
    assert matrix[1, 704:708].sum() == 0  # no tags
    assert matrix[3, 705] == 1.0  # the same tag twice


def test_the_seed_draws_lightgbm():
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(5)

    def rows(count):
        ids = rng.integers(1, 3, (count, 2)).astype(np.int32)
        numeric = rng.normal(size=(count, 1)).astype(np.float32)
        label = (rng.random(count) < 1 / (1 + np.exp(-numeric[:, 0]))).astype(np.float32)
        tags = np.ones((count, 2), np.int32)
        return EncodedRows(ids, numeric, {"tags": tags}, label, np.ones(count), label)

    splits = rows(4_000), rows(1_000), rows(100)
    (one, _), (same, _), (other, _) = (lightgbm_logits(*splits, SPEC, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_a_training_row_never_sees_its_own_label():
    """Changing the label of one row leaves that row's own features alone."""
    rng = np.random.default_rng(3)
    count = 400

    def rows(labels):
        ids = np.random.default_rng(1).integers(1, 3, (count, 2)).astype(np.int32)
        tags = np.random.default_rng(2).integers(0, 4, (count, 2)).astype(np.int32)
        numeric = np.zeros((count, 1), np.float32)
        label = labels.astype(np.float32)
        ones = np.ones(count, np.float32)
        return EncodedRows(ids, numeric, {"tags": tags}, label, ones, label.astype(float))

    before = (rng.random(count) < 0.3).astype(float)
    after = before.copy()
    after[7] = 1 - after[7]
    (one, other), native = tree_features(rows(before), (rows(before),), SPEC)
    (changed, _), _ = tree_features(rows(after), (rows(before),), SPEC)
    assert native == [0]
    # the smoothing prior alone (the mean over the other folds) may not contain the label either
    np.testing.assert_array_equal(one[7], changed[7])
    assert (one != changed).any() and one.shape == other.shape == (count, 4)
