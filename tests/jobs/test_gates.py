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
from serving.gates import GateConfig, held_out_gate, quality_gate, training_gate
from serving.gates import Outcome as GateOutcome
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
        ({"min_auc": 0.7}, {"auc": float("nan")}, "nan < 0.7"),
        ({"max_calibration_error": 0.1}, {"calibration_ratio": float("nan")}, "nan"),
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
    any_model = GateConfig(require_better_than_constant=False)
    quality_gate(metrics_with(auc=None, calibration_ratio=None), any_model).raise_if_refused()
    gate = any_model.model_copy(update={"min_auc": 0.7, "max_calibration_error": 0.1})
    quality_gate(metrics_with(auc=0.7, calibration_ratio=1.09), gate).raise_if_refused()
    wide = {"calibration_ratio": 2, "calibration_ratio_low": 1.2, "calibration_ratio_high": 3}
    quality_gate(metrics_with(**wide), any_model).raise_if_refused()
    off = {"calibration_ratio": 2, "calibration_ratio_low": 1.9, "calibration_ratio_high": 2.1}
    no_band = any_model.model_copy(update={"calibration_band": None})
    quality_gate(metrics_with(**off), no_band).raise_if_refused()
    with pytest.raises(ConfigError, match="lies around 1"):
        GateConfig(calibration_band=(1.1, 1.3))


@pytest.mark.parametrize(
    "auc, low, entropy, outcome, phrase",
    [
        (0.7, 0.6, 0.9, GateOutcome.PASS, ""),
        (0.7, 0.5, 0.9, GateOutcome.TOO_FEW_ROWS, "0.7, which is at least 0.5 (95 %) on 10 rows"),
        (0.434, 0.40, 1.1, GateOutcome.REFUSE, "0.434"),
        (0.5, 0.49, 0.9, GateOutcome.REFUSE, "better than a constant's"),
        (0.7, 0.6, 1.0, GateOutcome.REFUSE, "below that of a constant prediction; got 1 times it"),
        (float("nan"), 0.6, 0.9, GateOutcome.REFUSE, "nan"),
        (0.7, float("nan"), 0.9, GateOutcome.TOO_FEW_ROWS, "nan"),
        (None, None, None, GateOutcome.TOO_FEW_ROWS, "1 clicks in 10 rows"),
        (0.7, None, 0.9, GateOutcome.TOO_FEW_ROWS, "require_better_than_constant=false"),
    ],
)
def test_by_default_a_model_must_be_better_than_a_constant(
    auc: Any, low: Any, entropy: Any, outcome: GateOutcome, phrase: str
) -> None:
    found = metrics_with(auc=auc, auc_low=low, normalized_entropy=entropy)
    verdict = quality_gate(found, GateConfig())
    assert verdict.outcome is outcome
    if not verdict.passed:
        with pytest.raises(GateError) as refused:
            verdict.raise_if_refused()
        assert phrase in str(refused.value)
    assert quality_gate(found, GateConfig(require_better_than_constant=False)).passed


@pytest.mark.parametrize("rate, passes", [(0.0, False), (1.0, False), (1e-6, True)])
def test_a_model_that_was_trained_on_no_clicks(rate: float, passes: bool) -> None:
    assert training_gate(rate, GateConfig()).passed is passes
    assert training_gate(rate, GateConfig(require_better_than_constant=False)).passed


def measured_with(**known: Any) -> Metrics:
    base = {"count": 1000, "mean_label": 0.2, "mean_probability": 0.2, "auc": 0.7}
    return dataclasses.replace(
        metrics_with(), **{**base, "auc_low": 0.66, "auc_high": 0.74, **known}
    )


@pytest.mark.parametrize(
    "measured, claimed, phrase",
    [
        ({}, {}, ""),
        ({"mean_probability": 0.3}, {"mean_probability": 0.3}, ""),
        # odds of .2 are .25; intercept + 3 makes them 5.02, a probability of .834
        ({"mean_probability": 0.834}, {"mean_probability": 0.834}, "near the label rate"),
        ({"mean_probability": 0.012}, {"mean_probability": 0.012}, "near the label rate"),
        # no click in 1,000 rows: the 99.9 % interval ends at 10.83 / 1010.83 = .0107
        ({"mean_label": 0.0, "mean_probability": 0.02, "auc_low": None}, {"mean_probability": 0.02}, ""),
        ({"mean_label": 0.0, "mean_probability": 0.022}, {"mean_probability": 0.022}, "0.01071"),
        ({}, {"mean_probability": 0.5}, "mean prediction of 0.5, measured 0.2"),
        ({}, {"auc": 0.85}, "AUC of 0.85, measured 0.66 to 0.74"),
        ({}, {"auc": 0.55}, "AUC of 0.55"),
        ({}, {"auc": 0.83}, ""),
        ({"count": 0}, {}, "0 rows"),
        ({"mean_label": None}, {}, "measured on held-out rows"),
        ({}, {"mean_probability": None}, "measured on held-out rows"),
        ({"mean_probability": float("nan")}, {}, "near the label rate"),
        ({}, {"mean_probability": float("nan")}, "must say what the exported bytes predict"),
        ({}, {"auc": float("nan")}, "must say how well"),
    ],
)  # fmt: skip
def test_the_exported_bytes_are_held_against_labels_and_claims(
    measured: dict[str, Any], claimed: dict[str, Any], phrase: str
) -> None:
    verdict = held_out_gate(
        measured_with(**measured), measured_with(**claimed), GateConfig(), Path("R")
    )
    assert verdict.passed is (not phrase), verdict
    if phrase:
        with pytest.raises(GateError) as refused:
            verdict.raise_if_refused()
        assert phrase in str(refused.value)


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


def lose_the_data(base: Path, live: Path) -> None:
    shutil.rmtree(base)


def empty_the_manifest(base: Path, live: Path) -> None:
    (live / MANIFEST_PATH).write_text("{}")


def lose_the_manifest(base: Path, live: Path) -> None:
    (live / MANIFEST_PATH).unlink()


def cut_the_statistics(base: Path, live: Path) -> None:
    statistics = base / "statistics" / "statistics.json"
    statistics.write_text(statistics.read_text()[:50])


def empty_the_statistics(base: Path, live: Path) -> None:
    """Of the same size, which is all that opening the directory asks of a file."""
    statistics = base / "statistics" / "statistics.json"
    statistics.write_text("{}".ljust(statistics.stat().st_size))


def change_the_schema(base: Path, live: Path) -> None:
    schema = base / "schema.yaml"
    schema.write_text(schema.read_text().replace("name: synthetic", "name: synthetix"))


def lose_a_vocabulary(base: Path, live: Path) -> None:
    min((base / "statistics" / "vocabulary").glob("*")).unlink()


@pytest.mark.parametrize(
    "damage",
    [
        lose_the_data,
        empty_the_manifest,
        lose_the_manifest,
        cut_the_statistics,
        empty_the_statistics,
        change_the_schema,
        lose_a_vocabulary,
    ],
)
def test_a_live_version_that_cannot_be_compared_with_is_a_no(
    damage: Callable[[Path, Path], None],
    cli: Cli,
    tiny_work: TinyWork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import jobs.steps

    work = tmp_path / "work"
    shutil.copytree(tiny_work.path, work)
    damage(work / "data" / Path(tiny_work.result["data"]).name, work / "models" / "ctr" / "1")
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
