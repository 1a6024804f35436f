"""Missing, partial, stale or damaged evidence is a no: exit 3, what to do about it, and nothing published."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models.run_steps
from jobs.steps import publish_trained
from models.run_directory import RunDirectory
from models.trained_run import TrainedRun
from pipeline.errors import ClickparityError, ConfigError, GateError
from serving.export.manifest import MANIFEST_PATH, verify_manifest, write_manifest
from serving.parity.outcome import export_digest
from serving.repository.repository import ModelRepository
from serving.run_steps import kept_parity

Damage = Callable[[Path, Path], object]


class Reached(Exception):  # noqa: N818 - nothing is wrong
    """Every gate said yes: the repository was asked to publish."""


@pytest.fixture
def run_of(layer_run: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A finished run of one's own, without what no gate reads."""
    goal = tmp_path / "run"
    ignored = shutil.ignore_patterns("checkpoints", "logs", "*.html")
    shutil.copytree(layer_run.path, goal, ignore=ignored)
    config = (goal / "config.yaml").read_text()
    relative = os.path.relpath(layer_run.data_path, layer_run.path)
    (goal / "config.yaml").write_text(config.replace(relative, layer_run.data_path))
    return RunDirectory.open(goal)


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """To score the test split anew is a no here; to be published is `Reached`."""

    def score(*_: object) -> None:
        raise ConfigError("the test split must be scored anew")

    def publish(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.setattr(models.run_steps, "_score", score)
    monkeypatch.setattr(ModelRepository, "publish", publish)


def publish(run: RunDirectory) -> None:
    publish_trained(TrainedRun(run), run.path.parent / "models")


def remove(name: str) -> Damage:
    return lambda run, other: (run / name).unlink()


def content(name: str, text: str | bytes) -> Damage:
    data = text.encode() if isinstance(text, str) else text
    return lambda run, other: (run / name).write_bytes(data)


def cut(name: str) -> Damage:
    return lambda run, other: os.truncate(run / name, (run / name).stat().st_size // 2)


def take_the_others(name: str) -> Damage:
    return lambda run, other: shutil.copy(other / name, run / name)


def edit(name: str, change: Callable[[Any], object], *, seal: bool = True) -> Damage:
    """By hand, with the file's seal made anew (or not)."""

    def damage(run: Path, other: Path) -> None:
        document = json.loads((run / name).read_text())
        change(document)
        if seal:
            document.pop("seal")
            RunDirectory.open(run).write_json(name, document)
        else:
            (run / name).write_text(json.dumps(document))

    return damage


def check(number: int, **values: Any) -> Callable[[Any], object]:
    return lambda document: document["checks"][number].update(values)


def of_export(change: Callable[[Path], object]) -> Damage:
    return lambda run, other: change(run / "export")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 16
    path.write_bytes(data)


def built_from_elsewhere(export: Path) -> None:
    """An export of other weights, in order in itself and named in the report."""
    manifest = verify_manifest(export)
    extra = {**manifest.extra, "weights": "0" * 64}
    write_manifest(export, fingerprint=manifest.fingerprint, extra=extra)
    edit("parity.json", lambda d: d.update(export_digest=export_digest(export)))(
        export.parent, export
    )


def other_weights(run: Path, other: Path) -> None:
    with np.load(run / "weights.npz") as arrays:
        changed = {name: value + np.float32(0.5) for name, value in arrays.items()}
    np.savez(run / "weights.npz", **changed)


def steeper(document: Any) -> None:
    document["calibration"]["residual"] = {"kind": "platt", "slope": 1.0, "intercept": 3.0}


DAMAGES: dict[str, Damage] = {
    "no parity report": remove("parity.json"),
    "an empty one": content("parity.json", ""),
    "half of one": cut("parity.json"),
    "one that says nothing": content("parity.json", "{}"),
    "a list": content("parity.json", "[]"),
    "null": content("parity.json", "null"),
    "no text": content("parity.json", b"\xff\xfe\x00"),
    "no checks": edit("parity.json", lambda d: d.update(checks=[])),
    "no check of the export": edit("parity.json", lambda d: d["checks"].pop(4)),
    "no check of the last": edit("parity.json", lambda d: d["checks"].pop()),
    "failed, and none that failed": edit("parity.json", lambda d: d.update(passed=False)),
    "no verdict": edit("parity.json", lambda d: d.pop("passed")),
    "a verdict of text": edit("parity.json", lambda d: d.update(passed="true")),
    "a value over its bar": edit("parity.json", check(4, value=1.0)),
    "a value that is no number": edit("parity.json", check(4, value="nan")),
    "a bar that was raised": edit("parity.json", check(4, value=0.5, bar=1.0)),
    "a bar that was taken away": edit("parity.json", check(4, bar=None, passed=None)),
    "an edit without a seal's knowledge": edit("parity.json", check(4, says="x"), seal=False),
    "of another run": take_the_others("parity.json"),
    "of other bytes": edit("parity.json", lambda d: d.update(export_digest="0" * 64)),
    "of an earlier version's checks": edit("parity.json", lambda d: d.pop("version")),
    "of a later version's checks": edit("parity.json", lambda d: d.update(version=99)),
    "no export": of_export(shutil.rmtree),
    "an export without its manifest": of_export(lambda e: (e / MANIFEST_PATH).unlink()),
    "a manifest that was cut": of_export(lambda e: os.truncate(e / MANIFEST_PATH, 100)),
    "a manifest with a flipped bit": of_export(lambda e: flip(e / MANIFEST_PATH)),
    "variables with a flipped bit": of_export(lambda e: flip(next(e.glob("variables/*.data*")))),
    "no variables": of_export(lambda e: shutil.rmtree(e / "variables")),
    "a file more": of_export(lambda e: (e / "more").write_text("more")),
    "a graph that was cut": of_export(lambda e: os.truncate(e / "saved_model.pb", 1000)),
    "an export of other weights": of_export(built_from_elsewhere),
    "no metrics": remove("metrics.json"),
    "half of the metrics": cut("metrics.json"),
    "metrics of another split": edit("metrics.json", lambda d: d.pop("test")),
    "metrics that were edited": edit("metrics.json", lambda d: d["test"].update(auc=0.9), seal=False),
    "metrics without the AUC": edit("metrics.json", lambda d: d["test"].pop("auc")),
    "metrics of no model better than a constant": edit(
        "metrics.json", lambda d: d["test"].update(auc=0.434, auc_low=0.4)
    ),
    "metrics of another run": take_the_others("metrics.json"),
    "metrics of other weights": edit(
        "metrics.json", lambda d: d["test"]["measured"].update(weights="0" * 64)
    ),
    "no calibration": remove("calibration.json"),
    "half of the calibration": cut("calibration.json"),
    "an empty calibration": content("calibration.json", "{}"),
    "a calibration that was edited": edit("calibration.json", steeper, seal=False),
    "a calibration with twenty-fold odds": edit("calibration.json", steeper),
    "no weights": remove("weights.npz"),
    "half of the weights": cut("weights.npz"),
    "other weights": other_weights,
}  # fmt: skip


def test_good_evidence_reaches_the_repository(run_of: RunDirectory) -> None:
    with pytest.raises(Reached):
        publish(run_of)


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_evidence_is_a_no(damage: str, run_of: RunDirectory, batch_run: RunDirectory) -> None:
    DAMAGES[damage](run_of.path, batch_run.path)
    with pytest.raises(GateError) as refused:
        publish(run_of)
    message = str(refused.value)
    assert refused.value.exit_code == 3
    assert refused.value.remedy or "scored anew" in message, message
    assert "Traceback" not in message
    assert not (run_of.path.parent / "models").exists()


@pytest.mark.parametrize("damage", [n for n in DAMAGES if "metrics" not in n])
def test_bad_evidence_is_made_anew_where_it_can_be(
    damage: str, run_of: RunDirectory, batch_run: RunDirectory
) -> None:
    """`run` and `parity` take no report for done that a gate would refuse for what it is of."""
    over = ("a value over its bar", "a bar that was raised", "a bar that was taken away")
    if damage in over or damage == "a value that is no number":
        pytest.skip("a report of this export, which the gate refuses")
    DAMAGES[damage](run_of.path, batch_run.path)
    assert kept_parity(run_of) is None


NAMES = ("calibration.json", "metrics.json", "parity.json", "result.json")


@pytest.mark.parametrize("name", NAMES)
def test_flipped_bits_are_found_or_harmless(name: str, run_of: RunDirectory) -> None:
    """25 bits of each file, at places drawn at random; and nothing is published that was changed."""
    path = run_of.path / name
    good, before = path.read_bytes(), run_of.read_json(name)
    places = np.random.default_rng([25, NAMES.index(name)]).choice(len(good) * 8, 25, replace=False)
    found = 0
    for place in places:
        damaged = bytearray(good)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            document = run_of.read_json(name)
        except ClickparityError:
            found += 1
            if name != "result.json":
                with pytest.raises(GateError):
                    publish(run_of)
        else:
            same = {key: document.get(key) for key in before}
            assert same == before, f"bit {place} of {name} changed it, and nobody noticed"
    assert found >= 15, "most of a file is not white space"
