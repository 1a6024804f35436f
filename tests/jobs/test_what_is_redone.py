"""A changed option does again what depends on it, and no more; an older work directory is gone on from."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.run_directory import RunDirectory, run_fingerprint
from serving.export.manifest import verify_manifest, write_manifest
from serving.parity.outcome import export_digest
from tests.conftest import TinyWork, without_replica_check
from tests.jobs.conftest import Outcome, files_below

Cli = Callable[..., Outcome]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the work of the steps, where it is done: training steps, fits, scored splits, proofs."""
    import models.calibration
    import models.training.scoring
    import models.training.step
    import serving.parity.suite

    counts: Counter[str] = collections.Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        return call

    steps = counted("training steps", models.training.step.TrainSteps.__call__)
    monkeypatch.setattr(models.training.step.TrainSteps, "__call__", steps)
    fit = counted("calibration", models.calibration.fit_calibration)
    monkeypatch.setattr(models.calibration, "fit_calibration", fit)
    score = models.training.scoring.score_split

    def scored(model: Any, data: Any, split: str, *more: Any) -> Any:
        counts[f"scoring {split}"] += 1
        return score(model, data, split, *more)

    monkeypatch.setattr(models.training.scoring, "score_split", scored)
    prove = counted("parity", serving.parity.suite.run_parity)
    monkeypatch.setattr(serving.parity.suite, "run_parity", prove)
    with without_replica_check():
        yield counts


@pytest.fixture
def work(tiny_work: TinyWork, tmp_path: Path) -> TinyWork:
    """A finished work directory of one's own."""
    shutil.copytree(tiny_work.path, tmp_path / "work")
    return dataclasses.replace(tiny_work, path=tmp_path / "work")


def run(cli: Cli, work: TinyWork, *settings: str) -> Outcome:
    return cli(*work.arguments, *settings, "--workdir", work.path, "--json")


def versions(work: TinyWork, name: str = "ctr") -> list[str]:
    return sorted(p.name for p in (work.path / "models" / name).iterdir() if p.name.isdigit())


@pytest.mark.parametrize(
    "settings, redone, published",
    [
        (["gate.min_auc=0.5"], {}, {"ctr": ["1"]}),
        (["gate.max_calibration_error=0.9"], {}, {"ctr": ["1"]}),
        (["export.accept_batch_gap=0.5"], {}, {"ctr": ["1"]}),
        (["export.name=other"], {}, {"ctr": ["1"], "other": ["1"]}),
        (["drift.max_psi=0.2"], {}, {"ctr": ["1"]}),
        (["train.keep_checkpoints=3"], {}, {"ctr": ["1"]}),
        (["train.steps_per_execution=4", "train.checkpoint_every_steps=9"], {}, {"ctr": ["1"]}),
        (["preprocess.max_reject_rate=0.5", "preprocess.num_partitions=3"], {}, {"ctr": ["1"]}),
        (["train.evaluation_batch_size=1000"], {"scoring test": 1}, {"ctr": ["1"]}),
        (
            ["calibration=isotonic"],
            {"scoring validation": 1, "calibration": 1, "scoring test": 1, "parity": 1},
            {"ctr": ["1", "2"]},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_right_step_is_redone(
    settings: list[str],
    redone: dict[str, int],
    published: dict[str, list[str]],
    cli: Cli,
    work: TinyWork,
    done: Counter[str],
) -> None:
    result = run(cli, work, *settings).result
    assert dict(done) == redone
    assert result["run_id"] == work.result["run_id"]
    assert {name: versions(work, name) for name in published} == published
    name = list(published)[-1]
    live = verify_manifest(work.path / "models" / name / published[name][-1])
    assert live.fingerprint == result["published"]["fingerprint"]
    assert run(cli, work, *settings).result["nothing_to_do"] is True
    assert dict(done) == redone


def test_the_first_options_again_bring_the_first_calibration_back(
    cli: Cli, work: TinyWork, done: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (work.path / "runs" / work.result["run_id"] / "calibration.json").read_bytes()
    outcome = run(cli, work, "calibration=none", "gate.min_auc=0.9999")
    outcome.refused(3, "gate.min_auc")
    run_dir = RunDirectory.open(work.path / "runs" / work.result["run_id"])
    assert run_dir.read_json("calibration.json")["calibration"]["residual"] == {"kind": "identity"}
    assert run_dir.fingerprint != work.result["published"]["fingerprint"]
    result = run(cli, work).result
    assert (run_dir.path / "calibration.json").read_bytes() == before
    assert result["published"] == {
        **work.result["published"],
        "path": str(work.path / "models" / "ctr" / "1"),
        "outcome": "already live",
        "message": result["published"]["message"],
    }
    assert "training steps" not in done


def test_an_evaluation_by_a_column_is_one_of_the_whole_too(
    cli: Cli, work: TinyWork, done: Counter[str]
) -> None:
    run_dir = work.path / "runs" / work.result["run_id"]
    assert cli("evaluate", "--run", run_dir, "--by", "c5").code == 0
    assert run(cli, work).result["nothing_to_do"] is True
    assert dict(done) == {"scoring test": 1}


def test_a_bar_that_is_raised_asks_the_gate_again(
    cli: Cli, work: TinyWork, done: Counter[str]
) -> None:
    auc = work.result["metrics"]["auc"]
    run(cli, work, "gate.min_auc=0.999").refused(3, "gate.min_auc", str(auc))
    assert not done


def test_a_reject_limit_that_is_lowered_is_held_against_finished_data(
    cli: Cli, work: TinyWork, done: Counter[str]
) -> None:
    summary = work.path / "data" / Path(work.result["data"]).name / "summary.json"
    found = json.loads(summary.read_text())
    found.update(rejected_rows=30, reject_reasons={"not UTF-8": 30})
    summary.write_text(json.dumps(found))
    assert run(cli, work).code == 0
    limit = "preprocess.max_reject_rate=0.001"
    run(cli, work, limit).refused(4, "max_reject_rate", "30 of 6000", "30 x not UTF-8")


def test_a_refused_batch_norm_run_is_published_by_following_its_message(
    cli: Cli, batch_run: RunDirectory, copy_of, tmp_path: Path, done: Counter[str]
) -> None:
    started = time.monotonic()
    refused_run = copy_of(batch_run)
    models = tmp_path / "models of mine"
    argv = ["export", "--run", refused_run.path, "--models", models, "--name", "ads"]
    message = cli(*argv).refused(3, "accept_batch_gap")
    command = message[message.index("clickparity export") :].partition(" (and")[0]
    outcome = cli(*shlex.split(command)[1:], "--json")
    assert outcome.result["outcome"] == "published"
    assert verify_manifest(models / "ads" / "1").fingerprint == batch_run.fingerprint
    assert not done, "no training step, nothing scored, nothing proved"
    assert time.monotonic() - started < 60
    # What was accepted is kept: the same again needs no option.
    assert cli(*argv, "--json").result["outcome"] == "already live"


def test_export_takes_gate_and_export_options_and_no_other(
    cli: Cli, layer_run: RunDirectory, copy_of, tmp_path: Path
) -> None:
    kept = copy_of(layer_run, gate={"min_auc": 0.999})
    argv = ["export", "--run", kept.path, "--models", tmp_path / "m"]
    cli(*argv, "--set", "train.seed=3").refused(2, "train.seed=3", "gate and export options only")
    cli(*argv, "--set", "gtae.min_auc=0").refused(2, "gtae", "Did you mean 'gate'?")
    cli(*argv).refused(3, "gate.min_auc")
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text("model: dcn\ngate: {min_auc: 0.998}\nexport: {name: ads}\n")
    cli(*argv, "--config", pipeline).refused(3, "< 0.998")
    before = RunDirectory.open(kept.path).config
    assert before["gate"]["min_auc"] == 0.999, "what was refused is not kept"
    result = cli(*argv, "--config", pipeline, "--set", "gate.min_auc=0.5", "--json").result
    assert (result["name"], result["version"]) == ("ads", 1)
    after = RunDirectory.open(kept.path).config
    assert (after["gate"]["min_auc"], after["export"]["name"]) == (0.5, "ads")
    assert {k: v for k, v in after.items() if k not in ("gate", "export")} == {
        k: v for k, v in before.items() if k not in ("gate", "export")
    }


# ------------------------------------------------------------------------------- what is left is looked at


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    "damaged, redone, live",
    [
        ("models/ctr/1/variables/variables.data*", {}, "2"),
        ("models/ctr/1/saved_model.pb", {}, "2"),
        ("runs/*/export/variables/variables.data*", {"parity": 1}, "1"),
        ("runs/*/calibration.json", {"scoring validation": 1, "calibration": 1}, "1"),
    ],
)
def test_what_a_finished_run_has_lost_is_made_again(
    damaged: str,
    redone: dict[str, int],
    live: str,
    cli: Cli,
    work: TinyWork,
    done: Counter[str],
) -> None:
    (file,) = work.path.glob(damaged)
    cut(file) if file.suffix != ".json" else file.unlink()
    result = run(cli, work).result
    assert result["nothing_to_do"] is False
    assert dict(done) == redone
    assert versions(work)[-1] == live
    verify_manifest(work.path / "models" / "ctr" / live)
    assert run(cli, work).result["nothing_to_do"] is True


def test_data_that_a_finished_run_has_lost_is_no_nothing_to_do(cli: Cli, work: TinyWork) -> None:
    shard = min(work.path.glob("data/*/train/part-*"))
    cut(shard)
    run(cli, work).refused(4, str(shard), "delete it and preprocess again")


# ------------------------------------------------------------------------------- moved; of earlier versions


def test_a_work_directory_that_was_moved_is_gone_on_from(
    cli: Cli, work: TinyWork, done: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "work"
    work.path.rename(moved)
    run_dir = Path("..") / "elsewhere" / "work" / "runs" / work.result["run_id"]
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli("evaluate", "--run", run_dir, "--split", "validation", "--json").code == 0
    monkeypatch.chdir(tmp_path)
    relative = dataclasses.replace(work, path=Path("elsewhere") / "work")
    result = run(cli, relative).result
    assert result["nothing_to_do"] is True
    assert result["run"] == str(relative.path / "runs" / work.result["run_id"])
    weights = moved / "runs" / work.result["run_id"] / "weights.npz"
    before = weights.read_bytes()
    weights.unlink()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(cli, dataclasses.replace(work, path=Path("work"))).code == 0
    assert weights.read_bytes() == before, "its last checkpoint is all of the training"
    assert "training steps" not in done


# As version 0.1.0 wrote the section: an option for every model, most of them null; every norm's options.
OLD_MODEL = {
    "name": "dcn_v2",
    "norm": {
        "kind": "layer",
        "placement": "before_activation",
        "epsilon": 1e-05,
        "momentum": 0.99,
        "synchronized": False,
        "groups": 8,
        "on_hidden": True,
        "on_embeddings": False,
    },
    "embedding_dim": 4,
    "embedding": {
        "initializer": "uniform",
        "scale": 0.05,
        "compression": {"kind": "none", "above": 1000000, "rows": 250000},
    },
    "hidden_units": [16],
    "dropout": 0.0,
    "dropout_seed": 0,
    "activation": "relu",
    "cross": {"num_layers": 3, "projection_dim": None, "num_experts": 1, "structure": "parallel"},
    "attention": None,
    "dstn": None,
    "image": None,
    "dlrm": None,
    "mask": None,
    "final_mlp": None,
}


def as_an_earlier_version(work: TinyWork) -> Path:
    """Makes the run what version 0.1.0 left: an id over all sections, no formats, no identities."""
    run_dir = work.path / "runs" / work.result["run_id"]
    now = RunDirectory.open(run_dir)
    config = {**now.config, "model": OLD_MODEL}
    old_id = run_fingerprint(config, now.data_fingerprint)
    data = {"path": now.data_path, "fingerprint": now.data_fingerprint}
    document = {"fingerprint": old_id, "data": data, "config": config}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    for name, key in (("calibration.json", "model"), ("metrics.json", "measured")):
        content = now.read_json(name)
        (content if name == "calibration.json" else content["test"]).pop(key)
        now.write_json(name, content)
    extra = verify_manifest(run_dir / "export").extra
    write_manifest(run_dir / "export", fingerprint=old_id, extra=extra)
    digest = export_digest(run_dir / "export")
    now.write_json(
        "parity.json", {**now.read_json("parity.json"), "run": old_id, "export_digest": digest}
    )
    shutil.rmtree(work.path / "models" / "ctr" / "1")
    shutil.copytree(run_dir / "export", work.path / "models" / "ctr" / "1")
    (run_dir / "_SUCCESS").write_text(old_id + "\n")
    old = work.path / "runs" / old_id
    run_dir.rename(old)
    return old


def test_a_run_of_an_earlier_version_is_gone_on_from(
    cli: Cli, work: TinyWork, done: Counter[str]
) -> None:
    old = as_an_earlier_version(work)
    before = files_below(work.path)
    result = run(cli, work).result
    assert "training steps" not in done
    assert "parity" not in done, "its export is what it was"
    assert result["run_id"] == work.result["run_id"]
    assert result["published"]["outcome"] == "already live"
    assert result["published"]["fingerprint"] == old.name
    assert not old.exists()
    assert {f.replace(old.name, result["run_id"]) for f in before} == files_below(work.path)
    assert run(cli, work).result["nothing_to_do"] is True


def test_a_run_of_an_earlier_version_is_read(cli: Cli, work: TinyWork, tmp_path: Path) -> None:
    old = as_an_earlier_version(work)
    evaluated = cli("evaluate", "--run", old, "--json").result
    assert evaluated["auc"] == work.result["metrics"]["auc"]
    argv = ["export", "--run", old, "--models", work.path / "models", "--name", "ctr", "--json"]
    assert cli(*argv).result["outcome"] == "already live"


def test_a_run_of_a_later_version_is_refused(cli: Cli, layer_run: RunDirectory, copy_of) -> None:
    run_dir = copy_of(layer_run)
    text = (run_dir.path / "config.yaml").read_text()
    (run_dir.path / "config.yaml").write_text(text.replace("format: 2", "format: 3"))
    cli("evaluate", "--run", run_dir.path).refused(2, "format 3", "version of clickparity")
