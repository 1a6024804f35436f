"""The checks beside the bars: replicas, norm health, company, metrics; and the pictures of them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from models.run_directory import RunDirectory
from models.trained_run import TrainedRun
from pipeline.errors import ConfigError, DataError
from pipeline.records.data_directory import DataDirectory
from pipeline.records.encoded import EncodedSpec, IdFeature
from pipeline.transform.parity_sample import real_rows
from serving.loader import loader_choice as loader
from serving.parity.batch_composition import compositions, sweep
from serving.parity.figures import composition_figure, gap_figure
from serving.parity.metric import metric_difference
from serving.parity.norm_health import measure_batch_norm
from serving.parity.outcome import ParityReport
from serving.parity.replica import replica_equality
from serving.parity.report import write_report
from tests.damage import flip_a_bit

SPEC = EncodedSpec((), (IdFeature("site", 5), IdFeature("user", 90), IdFeature("time_hour", 25)))


def rows(num_rows=2000, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "numeric": np.zeros([num_rows, 0], np.float32),
        "ids": np.stack([rng.integers(0, n, num_rows) for n in (5, 90, 25)], 1).astype(np.int32),
        "label": (rng.random(num_rows) < 0.1).astype(np.float32),
        "weight": np.ones(num_rows, np.float32),
    }


# ------------------------------------------------------------------------------ company


def test_compositions_are_what_they_are_called():
    encoded = rows()
    encoded["ids"][:500, 1] = 0
    found = compositions(encoded, SPEC, 64, np.random.default_rng(0))
    ids, label = encoded["ids"], encoded["label"]
    assert all(len(b) == 64 for batches in found.values() for b in batches)
    assert all(len(set(ids[b, 1])) == 1 for b in found["one user"])
    assert all(len(set(ids[b, 2])) == 1 for b in found["one hour"])
    assert all(len(set(ids[b, 1])) < 10 for b in found["sorted by user"])
    assert all(label[b].min() == 1 for b in found["all clicks"])
    assert all(label[b].max() == 0 for b in found["no click"])
    most = 1 + np.argmax(np.bincount(ids[:, 1])[1:])  # id 0 is a missing value, no user
    assert set(ids[found["one user"][0], 1]) == {most}


def test_no_click_among_the_rows_leaves_those_batches_out():
    encoded = {**rows(), "label": np.zeros(2000, np.float32)}
    assert "all clicks" not in compositions(encoded, SPEC, 64, np.random.default_rng(0))
    check = sweep(
        lambda e: np.zeros(len(e["label"])), {"as trained": np.zeros(2000)}, encoded, SPEC
    )
    assert check.details["by_base_rate_factor"] == {}


def test_the_sweep_measures_a_known_dependence_on_the_batch():
    """A "model" whose trained logit is served + the batch's click rate: the shift is that rate."""
    encoded = rows(8192)
    served = np.linspace(-3, 3, 8192).astype(np.float32)

    def trained(batch):
        return batch["place"] + batch["label"].mean()

    check = sweep(
        trained,
        {"as trained": served, "re-estimated": served + 0.25},
        {**encoded, "place": served},
        SPEC,
    )
    rate = float(encoded["label"].mean())
    details = check.details
    for factor, gaps in details["by_base_rate_factor"].items():
        expected = round(512 * rate * float(factor)) / 512
        assert gaps["as trained"]["shift"] == pytest.approx(expected, abs=1e-5)
        assert gaps["re-estimated"]["shift"] == pytest.approx(expected - 0.25, abs=1e-5)
    assert details["by_composition"]["all clicks"]["as trained"]["largest"] == pytest.approx(1.0)
    assert details["by_composition"]["no click"]["as trained"]["largest"] == pytest.approx(
        0, abs=1e-6
    )
    assert details["by_batch_size"]["1"]["as trained"]["largest"] == pytest.approx(1.0)
    assert list(details["by_batch_size"]) == ["1", "2", "8", "64", "512", "4096"]
    assert check.value == details["by_batch_size"]["64"]["as trained"]["largest"]
    assert check.passed is None


# ------------------------------------------------------------------------------ norm health


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_damaged_shard_is_named(split, batch_run, tiny_data, tmp_path):
    from serving.export.build import serving_module
    from serving.parity.batch_norm import batch_norm_checks

    shutil.copytree(tiny_data.path, tmp_path / "data")
    shard = min((tmp_path / "data" / split).glob("part-*"))
    flip_a_bit(shard)
    data = DataDirectory.open(tmp_path / "data")
    with pytest.raises(DataError, match=f"got {shard}: corrupted record"):
        batch_norm_checks(batch_run, data, serving_module(TrainedRun(batch_run)))


def test_moving_statistics_that_were_shifted_are_found_and_put_back(batch_run, tiny_data):
    from models.keras2 import keras
    from serving.parity.batch_norm import held_out_rows

    model = batch_run.load_model(dropout=0.0)
    encoded = held_out_rows(tiny_data, 1200)
    norms = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    batches = [{k: tf.constant(v) for k, v in encoded.items()}]
    calibration = TrainedRun(batch_run).calibration
    # Re-estimated on the very rows that they are held against, they must agree with these ...
    from models.training.batch_statistics import reestimate_batch_statistics

    reestimate_batch_statistics(model, batches)
    good = measure_batch_norm(model, encoded, batches, calibration)
    assert good.health.value < 1e-3
    assert good.health.details["reestimated_minus_as_trained"]["largest_logit_change"] < 1e-3
    # ... and one mean moved by three deviations is told as three.
    moving = norms[0].moving_mean
    deviation = np.sqrt(norms[0].moving_variance.numpy() + norms[0].epsilon)
    shifted = moving.numpy() + np.eye(len(deviation))[1] * 3 * deviation
    moving.assign(shifted)
    bad = measure_batch_norm(model, encoded, batches, calibration)
    assert bad.health.details["layers"]["norm 1"]["mean_shift_largest"] == pytest.approx(
        3, abs=0.01
    )
    assert np.abs(bad.served["as trained"] - good.served["as trained"]).max() > 0.01
    np.testing.assert_allclose(
        bad.served["re-estimated"], good.served["as trained"], atol=1e-3, rtol=0
    )
    np.testing.assert_array_equal(moving.numpy(), shifted.astype(np.float32))


def test_the_report_of_a_batch_norm_run_has_what_the_issue_asks_for(batch_run):
    report = batch_run.read_json("parity.json")
    by_name = {c["name"]: c for c in report["checks"]}
    company = by_name["batch, composition"]["details"]
    for part in ("by_batch_size", "by_composition", "by_base_rate_factor"):
        for gaps in company[part].values():
            assert gaps["as trained"].keys() == gaps["re-estimated"].keys()
    assert {"random", "all clicks", "no click", "one hour"} <= company["by_composition"].keys()
    assert by_name["norm health"]["details"]["layers"]
    assert by_name["batch, composition"]["value"] > 1e-3


# ------------------------------------------------------------------------------ replica


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layer_run", "batch_run"])
def test_a_step_on_two_replicas(name, request, tiny_data):
    run = request.getfixturevalue(name)
    _, encoded = real_rows(tiny_data, 256)
    uses = name == "batch_run"
    check = replica_equality(run, encoded, has_batch_statistics=uses)
    assert min(check.details["moved_by_the_step"].values()) > 1e-3  # a step that did something
    if name == "layer_run":
        assert check.passed
        assert check.bar == 1e-5
        return
    assert check.passed is None
    variants = check.details["by_variant"]
    assert variants["synchronised"] <= 1e-4 < variants["per replica"] == check.value


def test_batch_norms_are_found_wherever_they_are():
    from models.config.model import parse_model_config
    from serving.parity.replica import batch_norms

    def kinds(**model):
        found = batch_norms(parse_model_config(model))
        return [(norm.kind, norm.synchronized) for norm in found]

    inside = {"kind": "batch", "synchronized": True}
    assert kinds(name="dcn_v2", norm="layer") == []
    assert kinds(name="dcn_v2", norm="batch") == [("batch", False)]
    assert kinds(name="ad_image", norm="layer", image={"norm": inside}) == [("batch", True)]
    both = kinds(name="ad_image", norm="batch", image={"norm": inside})
    assert sorted(both) == [("batch", False), ("batch", True)]


@pytest.mark.parametrize("has_batch_statistics, bar", [(True, None), (False, 1e-5)])
def test_the_bar_of_replicas_follows_the_built_model(
    has_batch_statistics, bar, layer_run, tiny_data, monkeypatch
):
    from serving.parity import replica

    answer = {f"as configured/{n}": np.zeros(4, np.float32) for n in range(3)}
    monkeypatch.setattr(replica, "_step", lambda *_: answer)
    _, encoded = real_rows(tiny_data, 4)
    check = replica_equality(layer_run, encoded, has_batch_statistics=has_batch_statistics)
    assert check.bar == bar


# ------------------------------------------------------------------------------ metric


def test_a_run_does_not_differ_from_itself(layer_run):
    check = metric_difference(TrainedRun(layer_run), TrainedRun(layer_run))
    assert check.value == 0.0
    assert not any(check.details["differs"].values())
    assert check.passed is None


def test_the_difference_has_the_sign_of_the_metrics(layer_run, batch_run):
    check = metric_difference(TrainedRun(layer_run), TrainedRun(batch_run))
    differences = check.details["differences"]
    ours, theirs = (run.read_json("metrics.json")["test"] for run in (layer_run, batch_run))
    for name in ("auc", "log_loss", "calibration_ratio"):
        interval = differences[name]
        assert interval["estimate"] == pytest.approx(ours[name] - theirs[name], abs=1e-6)
        assert interval["low"] < interval["estimate"] < interval["high"]


def test_runs_on_different_data_are_not_compared(layer_run):
    other = dataclasses.replace(layer_run, data_fingerprint="0123456789abcdef")
    with pytest.raises(ConfigError, match="same rows"):
        metric_difference(TrainedRun(layer_run), TrainedRun(other))


# ------------------------------------------------------------------------------ pictures


def test_lines_run_from_left_to_right(layer_run, batch_run):
    """parity.json is sorted as text: 1, 1000, 2, 512, ..."""
    reports = [run.read_report("parity.json", ParityReport) for run in (layer_run, batch_run)]
    for figure in (gap_figure(reports), composition_figure(reports[1])):
        lines = [line.get_xdata() for axis in figure.axes for line in axis.get_lines()]
        assert max(map(len, lines)) > 4
        assert all(list(x) == sorted(x) for x in lines)


def test_the_page_shows_layer_beside_batch(layer_run, batch_run, tmp_path):
    reports = [run.read_report("parity.json", ParityReport) for run in (layer_run, batch_run)]
    metric = metric_difference(TrainedRun(layer_run), TrainedRun(batch_run))
    with_metric = dataclasses.replace(reports[0], checks=(*reports[0].checks, metric))
    reports[0] = ParityReport.from_json(json.loads(json.dumps(with_metric.to_json())))
    write_report(tmp_path / "parity.html", reports)
    page = (tmp_path / "parity.html").read_text()
    assert page.count("<img") == 4  # gaps, metric, company, health
    assert "minus dcn_v2, batch norm" in page
    assert "no difference shown" in page
    write_report(tmp_path / "alone.html", reports[1:])
    assert (tmp_path / "alone.html").read_text().count("<img") == 3


# ------------------------------------------------------------------------------ the C++ loader


def test_the_loader_can_be_switched_off(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        "serving.loader.cpp_loader.build_loader", lambda *_, **__: pytest.fail("compiles")
    )
    off = loader.find_loader("off")
    assert off.binary is None
    with pytest.raises(ConfigError, match=r"must be there to be asked.*switched off"):
        off.logits(tmp_path, {})


def test_a_machine_without_a_compiler_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("serving.loader.cpp_loader._compiler", lambda: None)
    found = loader.find_loader("auto")
    assert found.binary is None
    assert "no C++ compiler" in found.reason
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler.*Install g"):
        loader.find_loader("on")


def test_the_export_check_asks_the_loader_and_judges_its_answer(layer_run: RunDirectory, tiny_data):
    from serving.export.build import serving_module
    from serving.parity.export_checks import ask, export_equality

    real, encoded = real_rows(tiny_data, 8)
    module = serving_module(TrainedRun(layer_run))

    class Off(loader.Loader):
        def logits(self, export_dir, by_signature):
            wrong = (
                np.asarray(
                    module.calibration.logits(
                        module.model(
                            {k: tf.constant(v) for k, v in encoded.items()}, training=False
                        )
                    )
                )
                + 0.01
            )
            return dict.fromkeys(by_signature, wrong)

    asked = Off(layer_run.path)
    export = layer_run.path / "export"
    (check,) = ask(export, [export_equality(module, export, real, encoded, loader=asked)])
    assert check.details["by_loader"]["c++"] == pytest.approx(0.01, abs=1e-4)
    assert check.passed is False
    skipped = loader.Loader(None, "no compiler here")
    (check,) = ask(export, [export_equality(module, export, real, encoded, loader=skipped)])
    assert check.passed
    assert check.details["c++ skipped"] == "no compiler here"
