"""A run directory gives back what was put in, and nothing half-written or foreign."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.run_directory import RunDirectory, run_fingerprint
from models.zoo import build_model
from models.zoo.base import example_inputs
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec, IdFeature
from pipeline.step_directory import is_finished
from tests.damage import flip_a_bit

SPEC = EncodedSpec(("x",), (IdFeature("ad", 5), IdFeature("site", 3)), fingerprint="f")
MODEL = {"name": "dcn_v2", "norm": "batch", "embedding_dim": 2, "hidden_units": [3]}


def make_run(path, **model) -> RunDirectory:
    return RunDirectory.create(path, {"model": {**MODEL, **model}}, "data-1", "/data")


def trained(path, **model):
    run = make_run(path, **model)
    built = build_model(run.model_config, SPEC)
    rng = np.random.default_rng(0)
    for weight in built.weights:
        weight.assign(np.abs(rng.normal(size=weight.shape)).astype(weight.dtype.as_numpy_dtype))
    run.save_spec(SPEC)
    run.save_weights(built)
    return run, built


def test_a_model_comes_back_with_every_weight_and_the_same_logits(tmp_path):
    run, model = trained(tmp_path / "run")
    again = RunDirectory.open(tmp_path / "run").load_model()
    for before, after in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(before.numpy(), after.numpy())
    inputs = example_inputs(SPEC, 4)
    np.testing.assert_array_equal(model(inputs), again(inputs))
    assert run.spec == SPEC


def test_the_same_weights_are_the_same_bytes(tmp_path):
    _, model = trained(tmp_path / "a")
    other, _ = make_run(tmp_path / "b"), None
    other.save_weights(model)
    assert (tmp_path / "a/weights.npz").read_bytes() == (tmp_path / "b/weights.npz").read_bytes()


def test_weights_of_another_shape_are_refused(tmp_path):
    run, _ = trained(tmp_path / "run")
    larger = EncodedSpec(("x",), (IdFeature("ad", 9), IdFeature("site", 3)))
    run.save_spec(larger)
    with pytest.raises(ConfigError, match="vocabulary changed"):
        run.load_model()


def test_weights_of_another_architecture_are_refused(tmp_path):
    run, _ = trained(tmp_path / "run")
    other = make_run(tmp_path / "other", norm="layer")
    with pytest.raises(ConfigError, match="weights belong to the model"):
        run.load_weights(build_model(other.model_config, SPEC))


def test_creating_again_opens_the_same_run_and_refuses_another(tmp_path):
    first = make_run(tmp_path / "run")
    first.write_json("metrics.json", {"auc": 0.5})
    assert make_run(tmp_path / "run") == first
    assert first.read_json("metrics.json") == {"auc": 0.5}
    with pytest.raises(ConfigError, match=r"model.embedding_dim: 2 against 4.*another --out"):
        make_run(tmp_path / "run", embedding_dim=4)
    with pytest.raises(ConfigError, match="data data-1 against data-2"):
        RunDirectory.create(tmp_path / "run", {"model": MODEL}, "data-2", "/data")


def test_the_fingerprint_ignores_key_order_and_nothing_else():
    a = run_fingerprint({"model": {"x": 1, "y": 2}, "train": {}}, "d")
    assert a == run_fingerprint({"train": {}, "model": {"y": 2, "x": 1}}, "d")
    assert a != run_fingerprint({"train": {}, "model": {"y": 2, "x": 2}}, "d")
    assert a != run_fingerprint({"train": {}, "model": {"y": 2, "x": 1}}, "e")


def test_finished_means_finished_for_this_very_config(tmp_path):
    run = make_run(tmp_path / "run")
    assert not is_finished(run.path, run.fingerprint)
    run.finish()
    again = RunDirectory.open(tmp_path / "run")
    assert is_finished(again.path, again.fingerprint)
    (tmp_path / "run/_SUCCESS").write_text("another\n")
    assert not is_finished(run.path, run.fingerprint)


def test_what_is_missing_names_the_command_that_makes_it(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"metrics.json \(missing\). Run: clickparity evaluate"):
        run.read_json("metrics.json")
    run.save_spec(SPEC)
    with pytest.raises(ConfigError, match=r"weights.npz.*Run: clickparity train"):
        run.load_model()
    with pytest.raises(ConfigError, match=r"holds a config\.yaml"):
        RunDirectory.open(tmp_path)


def halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    "name, damage",
    [
        ("weights.npz", halve),
        ("weights.npz", flip_a_bit),
        ("weights.npz", lambda file: os.truncate(file, 0)),
        ("spec.json", halve),
        ("spec.json", lambda file: file.write_text("{}")),
        ("metrics.json", halve),
        ("history.jsonl", halve),
        ("result.json", halve),
    ],
)
def test_a_damaged_file_is_named_with_what_makes_it_anew(tmp_path, name, damage):
    run = make_run(tmp_path / "run", embedding_dim=64)  # its middle is numbers, no header
    run.save_spec(SPEC)
    run.save_weights(build_model(run.model_config, SPEC))
    run.write_history([{"epoch": 0}])
    makers = {"metrics.json": "clickparity evaluate", "result.json": "clickparity run"}
    for made in makers:
        run.write_json(made, {"auc": 0.5})
    path = run.path / name
    damage(path)
    maker = makers.get(name, "clickparity train")
    rule = rf"must be as it was written; got {path} \(.*\)\. Delete it, then run: {maker}"
    with pytest.raises(ConfigError, match=rule):
        _ = run.load_model(), run.read_history(), [run.read_json(made) for made in makers]


def test_history_is_one_line_an_epoch(tmp_path):
    run = make_run(tmp_path / "run")
    assert run.read_history() == []
    run.write_history([{"epoch": 0}, {"epoch": 1}])
    run.write_history([{"epoch": 0}])
    assert run.read_history() == [{"epoch": 0}]


def test_a_file_where_the_directory_should_be_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="must be writable"):
        make_run(tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ConfigError, match="must be writable"):
        make_run(tmp_path / "run")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    run = make_run(tmp_path / "run")
    run.write_json("metrics.json", {"auc": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        run.write_json("metrics.json", {"auc": float("nan")})
    assert run.read_json("metrics.json") == {"auc": 0.5}
    assert not [p for p in run.path.iterdir() if p.suffix == ".tmp"]


def test_opening_a_run_does_not_import_tensorflow(tmp_path):
    make_run(tmp_path / "run")
    code = (
        "import sys; from models.run_directory import RunDirectory;"
        f"RunDirectory.open({str(tmp_path / 'run')!r}).model_config;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_digit_that_changed_is_noticed(tmp_path):
    run = make_run(tmp_path / "run")
    run.write_json("metrics.json", {"auc": 0.5, "count": 10})
    text = (run.path / "metrics.json").read_text()
    (run.path / "metrics.json").write_text(text.replace("0.5", "0.7"))
    with pytest.raises(ConfigError, match=r"not those of its seal.*Delete it, then run"):
        run.read_json("metrics.json")
    (run.path / "metrics.json").write_text('{"auc": 0.5}')
    assert run.read_json("metrics.json") == {"auc": 0.5}, "earlier versions wrote no seal"


def test_the_digest_of_the_weights_follows_their_values(tmp_path):
    run, model = trained(tmp_path / "run")
    before = run.weights_digest
    run.save_weights(model)
    assert run.weights_digest == before != ""
    model.trainable_variables[0].assign_add(model.trainable_variables[0] * 0 + 1e-3)
    run.save_weights(model)
    assert run.weights_digest != before
    (run.path / "weights.npz").unlink()
    assert run.weights_digest == ""
