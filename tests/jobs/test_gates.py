"""`parity` and `export` on the command line: exit 3 when a gate says no, and nothing is published then."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.evaluation import Metrics
from models.trained_run import TrainedRun
from pipeline.errors import ConfigError, GateError
from serving.export.manifest import MANIFEST_PATH, verify_manifest
from serving.gates import GateConfig, quality_gate
from serving.parity.outcome import ParityReport
from tests.conftest import TinyWork
from tests.jobs.conftest import Outcome, files_below

Cli = Callable[..., Outcome]


def metrics_with(**known: float | None) -> Metrics:
    """Metrics of which only some are defined."""
    fields = [f for f in dataclasses.fields(Metrics) if f.default is dataclasses.MISSING]
    return Metrics(**{**{f.name: None for f in fields}, "count": 10, "clicks": 1.0, **known})


def versions(models: Path) -> list[str]:
    return sorted(p.name for p in models.glob("ctr/*") if p.name.isdigit())


@pytest.mark.parametrize(
    "gate, metrics, phrase",
    [
        ({"min_auc": 0.7}, {"auc": 0.69}, "0.69 < 0.7"),
        ({"min_auc": 0.7}, {"auc": None}, "None < 0.7"),
        ({"min_auc": 0.7}, {}, "gate.min_auc"),
        ({"max_calibration_error": 0.1}, {"calibration_ratio": 1.11}, "1.11"),
        ({"max_calibration_error": 0.1}, {"calibration_ratio": 0.89}, "0.89"),
        ({"max_calibration_error": 0.1}, {"calibration_ratio": None}, "None"),
        (
            {},
            {"calibration_ratio": 2, "calibration_ratio_low": 1.3, "calibration_ratio_high": 3},
            "gate.calibration_band [0.8, 1.25]; got 2 [1.3, 3]",
        ),
        (
            {},
            {"calibration_ratio": 0.5, "calibration_ratio_low": 0.4, "calibration_ratio_high": 0.7},
            "0.5 [0.4, 0.7]",
        ),
    ],
)
def test_a_quality_bar_that_is_missed(
    gate: dict[str, float], metrics: dict[str, Any], phrase: str
) -> None:
    with pytest.raises(GateError) as refused:
        quality_gate(metrics_with(**metrics), GateConfig(**gate)).raise_if_refused()
    assert phrase in str(refused.value)
    assert refused.value.exit_code == 3


def test_quality_bars_that_are_held() -> None:
    quality_gate(metrics_with(auc=None, calibration_ratio=None), GateConfig()).raise_if_refused()
    gate = GateConfig(min_auc=0.7, max_calibration_error=0.1)
    quality_gate(metrics_with(auc=0.7, calibration_ratio=1.09), gate).raise_if_refused()
    wide = {"calibration_ratio": 2, "calibration_ratio_low": 1.2, "calibration_ratio_high": 3}
    quality_gate(metrics_with(**wide), GateConfig()).raise_if_refused()
    off = {"calibration_ratio": 2, "calibration_ratio_low": 1.9, "calibration_ratio_high": 2.1}
    quality_gate(metrics_with(**off), GateConfig(calibration_band=None)).raise_if_refused()
    with pytest.raises(ConfigError, match="lies around 1"):
        GateConfig(calibration_band=(1.1, 1.3))


def test_a_run_below_min_auc_is_not_published(cli: Cli, layer_run, copy_of, tmp_path: Path) -> None:
    run = copy_of(layer_run, gate={"min_auc": 0.999})
    models = tmp_path / "models"
    argv = ["export", "--run", run.path, "--models", models, "--name", "ctr"]
    auc = run.read_json("metrics.json")["test"]["auc"]
    cli(*argv).refused(3, "gate.min_auc", str(auc))
    assert versions(models) == []


def test_a_tampered_export_is_not_published(cli: Cli, layer_run, copy_of, tmp_path: Path) -> None:
    run = copy_of(layer_run)
    target = next((run.path / "export").glob("variables/variables.data*"))
    content = bytearray(target.read_bytes())
    content[0] ^= 255
    target.write_bytes(content)
    models = tmp_path / "models"
    argv = ["--models", models, "--name", "ctr"]
    cli("export", "--run", run.path, *argv).refused(3, "altered")
    cli("publish", "--export", run.path / "export", *argv).refused(3, "altered")
    assert versions(models) == []
    assert not any(f.endswith(".pb") for f in files_below(tmp_path) if f.startswith("models"))


def test_a_batch_norm_run_is_published_only_as_accepted(
    cli: Cli, batch_run, copy_of, tmp_path: Path
) -> None:
    gap = next(
        c["value"] for c in batch_run.read_json("parity.json")["checks"]
        if c["name"] == "batch, trained"
    )  # fmt: skip
    models = tmp_path / "models"
    where = ["--models", models, "--name", "ctr"]
    message = cli("export", "--run", batch_run.path, *where).refused(3, "accept_batch_gap")
    assert f"{gap:.3g}" in message
    assert versions(models) == []
    accepting = copy_of(batch_run, export={"accept_batch_gap": gap * 1.01})
    result = cli("export", "--run", accepting.path, *where, "--json").result
    assert result["version"] == 1
    assert result["outcome"] == "published"
    assert verify_manifest(models / "ctr" / "1").fingerprint == batch_run.fingerprint
    again = cli("export", "--run", accepting.path, *where, "--json").result
    assert (again["version"], again["outcome"]) == (1, "already live")
    assert versions(models) == ["1"]


@pytest.mark.parametrize("lost", ["data", "manifest"])
def test_a_live_version_that_cannot_be_compared_with_is_a_no(
    lost: str, cli: Cli, tiny_work: TinyWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jobs.steps

    work = tmp_path / "work"
    shutil.copytree(tiny_work.path, work)
    if lost == "data":
        shutil.rmtree(work / "data" / Path(tiny_work.result["data"]).name)
    else:
        (work / "models" / "ctr" / "1" / MANIFEST_PATH).write_text("{}")
    day = tmp_path / "day.csv"
    shutil.copy(min(Path(tiny_work.arguments[2]).parent.glob("*.csv")), day)
    argv = ["run", "--input", day, "--workdir", work, "--set", *tiny_work.arguments[4:]]
    cli(*argv).refused(3, "what the live version was trained on", "drift.allow_missing_base=true")
    trained: list[object] = []

    def stop(*arguments: object) -> None:
        trained.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.steps, "train_run", stop)
    outcome = cli(*argv, "drift.allow_missing_base=true")
    assert "drift: not compared, as drift.allow_missing_base says" in outcome.err
    assert trained


def test_parity_against_another_run(
    cli: Cli, layer_run, batch_run, copy_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    import serving.parity.suite

    run = copy_of(layer_run)
    report = run.read_report("parity.json", ParityReport)
    proved: list[Path] = []

    def prove(trained: TrainedRun, **_: Any) -> ParityReport:
        proved.append(trained.run.path)
        return report

    monkeypatch.setattr(serving.parity.suite, "run_parity", prove)  # it takes half a minute
    argv = ["parity", "--run", run.path, "--against", batch_run.path]
    table = cli(*argv).out
    assert "holds" in table
    assert proved == [run.path], "the other run is proved already"
    page = (run.path / "parity.html").read_text()
    assert run.fingerprint in page
    assert batch_run.fingerprint in page
    checks = list(report.checks)
    checks[1] = dataclasses.replace(checks[1], value=0.5)
    report = dataclasses.replace(report, checks=tuple(checks))
    cli("parity", "--run", run.path).refused(3, "every parity bar must hold", "batch, served")
