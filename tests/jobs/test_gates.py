"""`parity` and `export` on the command line: exit 3 when a gate says no, and nothing is published then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.config import GateConfig
from jobs.steps import quality_gate
from pipeline.errors import GateError
from serving.export.manifest import verify_manifest
from tests.jobs.conftest import Outcome, files_below

Cli = Callable[..., Outcome]


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
    ],
)
def test_a_quality_bar_that_is_missed(
    gate: dict[str, float], metrics: dict[str, Any], phrase: str
) -> None:
    with pytest.raises(GateError) as refused:
        quality_gate(metrics, GateConfig(**gate))
    assert phrase in str(refused.value)
    assert refused.value.exit_code == 3


def test_quality_bars_that_are_held() -> None:
    quality_gate({"auc": None, "calibration_ratio": None}, GateConfig())
    gate = GateConfig(min_auc=0.7, max_calibration_error=0.1)
    quality_gate({"auc": 0.7, "calibration_ratio": 1.09}, gate)


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


def test_parity_against_another_run(
    cli: Cli, layer_run, batch_run, copy_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    import serving.parity.suite

    run = copy_of(layer_run)
    report = run.read_json("parity.json")
    proved: list[Path] = []

    def prove(run: Any, **_: Any) -> dict[str, Any]:
        proved.append(run.path)
        return report

    monkeypatch.setattr(serving.parity.suite, "run_parity", prove)  # it takes half a minute
    argv = ["parity", "--run", run.path, "--against", batch_run.path]
    table = cli(*argv).out
    assert "holds" in table
    assert proved == [run.path], "the other run is proved already"
    page = (run.path / "parity.html").read_text()
    assert run.fingerprint in page
    assert batch_run.fingerprint in page
    report = {**report, "passed": False, "checks": json.loads(json.dumps(report["checks"]))}
    report["checks"][1].update(passed=False, value=0.5)
    cli("parity", "--run", run.path).refused(3, "every parity bar must hold", "batch, served")
