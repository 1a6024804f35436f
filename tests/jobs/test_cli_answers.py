"""What the commands say when all is well: help, one JSON object, tables."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.config import load_run_config
from models.config.model import MODELS
from models.norms.base import NORMS
from models.trained_run import TrainedRun
from pipeline.errors import Interrupted
from pipeline.schema import FeatureSchema
from pipeline.transform.spec import encoded_spec
from tests.conftest import NUM_ROWS, SETTINGS
from tests.jobs.conftest import Outcome

Cli = Callable[..., Outcome]
ROOT = Path(__file__).parents[2]

HELP = """
import argparse, contextlib, io, json, sys
from jobs.cli import build_parser, main

(choices,) = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
texts = {}
for argv in ([], *([name] for name in choices.choices)):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main([*argv, "--help"])
        except SystemExit as done:
            assert not done.code, (argv, done.code)
    texts[" ".join(argv)] = out.getvalue()
heavy = [m for m in ("tensorflow", "tf_keras", "apache_beam", "grpc", "pyarrow") if m in sys.modules]
print(json.dumps({"texts": texts, "heavy": heavy}))
"""


def test_help_of_every_command_imports_nothing_heavy() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", HELP], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["heavy"] == []
    texts = found["texts"]
    commands = {
        "synth", "preprocess", "train", "evaluate", "parity", "export", "publish", "versions",
        "rollback", "prune", "stats", "models", "serve", "predict", "run", "demo",
    }  # fmt: skip
    assert commands <= set(texts)
    for name, text in texts.items():
        assert text.startswith(f"usage: clickparity {name}".rstrip()), name
        if name:
            assert name in texts[""], f"{name} is not in the list of commands"
            assert "--json" in text
            assert len(text.splitlines()) > 4


def test_without_a_command_the_help_is_printed(cli: Cli) -> None:
    outcome = cli()
    assert (outcome.code, outcome.err) == (0, "")
    groups = ["first look:", "data:", "model:", "publish:", "serve:", "operate:"]
    assert [line for line in outcome.out.splitlines() if line in groups] == groups


def test_models_lists_what_a_config_may_say(cli: Cli) -> None:
    result = cli("models", "--json").result
    names = {m["name"] for m in result["models"]}
    assert {"dcn_v2", "deepfm", "autoint", "wide_deep"} <= names
    assert {"layer", "batch", "none"} <= {n["name"] for n in result["norms"]}
    assert set(result["losses"]) == {"bce", "pos_weight", "focal"}
    text = cli("models").out
    assert names == set(MODELS)
    assert {n["name"] for n in result["norms"]} == set(NORMS)
    for name in (*MODELS, *NORMS, "bce", "pos_weight", "focal", "platt", "isotonic"):
        assert name in text
    for option in (
        "model.norm.synchronized", "model.norm.momentum", "model.norm.epsilon", "model.norm.groups",
        "model.norm.placement", "model.norm.on_embeddings", "model.cross.num_experts",
        "model.cross.projection_dim", "model.dstn.aggregation", "model.image.norm",
        "train.loss.pos_weight", "train.loss.alpha", "train.loss.gamma", "calibration.kind",
    ):  # fmt: skip
        (line,) = [x for x in text.splitlines() if x.strip().startswith(f"{option} = ")]
        assert len(line.partition(": ")[2]) > 3, f"{option} has no line on what it does"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_are_read_and_their_models_suit_their_schemas(path: Path) -> None:
    from models.zoo import build_model

    config = load_run_config(path)
    schema = FeatureSchema.load(config.schema)
    if schema.is_resolved:
        build_model(config.model, encoded_spec(schema, None))


def test_synth_writes_the_rows_it_says(cli: Cli, tmp_path: Path) -> None:
    argv = ["synth", "--out", tmp_path / "log", "--rows", "100", "--files", "3", "--json"]
    result = cli(*argv).result
    assert result["rows"] == 100
    lines = [Path(f).read_text().splitlines() for f in result["files"]]
    assert len(lines) == 3
    assert sum(len(part) - 1 for part in lines) == 100
    assert len({part[0] for part in lines}) == 1, "every file has the header"


def test_synth_with_sequences_writes_the_columns_of_its_schema(cli: Cli, tmp_path: Path) -> None:
    argv = ["synth", "--sequences", "--out", tmp_path, "--rows", "50", "--files", "1", "--json"]
    (file,) = cli(*argv).result["files"]
    header = Path(file).read_text().splitlines()[0].split(",")
    assert set(FeatureSchema.load("synthetic_sequences").columns) <= set(header)


def test_evaluate_breaks_metrics_down_by_any_kind_of_column(
    cli: Cli, layer_run, tiny_data, copy_of
) -> None:
    run = copy_of(layer_run)
    columns = ["c5", "n2", "tags", "time_hour", "true_probability"]
    result = cli("evaluate", "--run", run.path, "--by", *columns, "--json").result
    assert list(result["segments"]) == columns
    for values in result["segments"].values():
        assert sum(found["count"] for found in values.values()) == result["count"]
        assert sum(found["clicks"] for found in values.values()) == result["clicks"]
    slots = result["segments"]["c5"]
    assert {"slot0", "slot1"} <= set(slots)
    largest = slots["slot0"]
    for metric in ("auc", "log_loss", "normalized_entropy", "calibration_ratio"):
        for found in (result, largest):
            assert found[f"{metric}_low"] < found[metric] < found[f"{metric}_high"]
    assert result["raw"]["auc"] == pytest.approx(result["auc"], abs=1e-9)  # Platt keeps the order
    assert result["raw"]["calibration_ratio"] != result["calibration_ratio"]
    text = cli("evaluate", "--run", run.path, "--by", "c5").out
    assert f"{result['raw']['log_loss']:.4f}" in text
    assert f"{largest['auc']:.4f} [{largest['auc_low']:.4f}, {largest['auc_high']:.4f}]" in text


def test_stats_of_a_data_directory(cli: Cli, tiny_data) -> None:
    result = cli("stats", tiny_data.path, "--json").result
    assert result["numeric"].keys() == {f"n{i}" for i in range(1, 7)}
    text = cli("stats", tiny_data.path).out
    for name in ("n1", "c12", "tags", "train", "validation", "test", "rejected rows"):
        assert name in text
    assert f"label rate {result['label_rate']:.4%}" in text
    (line,) = [line for line in text.splitlines() if "n1 " in line]
    numbers = result["numeric"]["n1"]
    cells = [cell.strip() for cell in line.strip("\u2502").split("\u2502")]
    assert cells[1] == f"{numbers['count']:,}"
    assert float(cells[5].replace(",", "")) == pytest.approx(numbers["mean"], rel=1e-4)
    days = [line for line in text.splitlines() if "-" in line and line.startswith("\u2502 20")]
    shown = sum(int(line.split("\u2502")[2].replace(",", "")) for line in days)
    assert shown == NUM_ROWS, "label rate by day or hour, over all splits"


def test_evaluate_scores_a_split_and_keeps_it(cli: Cli, layer_run, tiny_data, copy_of) -> None:
    run = copy_of(layer_run)
    kept = run.read_json("metrics.json")
    result = cli("evaluate", "--run", run.path, "--split", "validation", "--json").result
    again = run.read_json("metrics.json")
    assert again == {**kept, "validation": result}
    assert result["count"] == tiny_data.num_rows("validation") == pytest.approx(600, abs=80)
    assert 0.5 < result["truth"]["bayes_auc"] < 1
    table = cli("evaluate", "--run", run.path).out
    assert f"{kept['test']['auc']:.4f}" in table


def test_preprocess_and_train_say_so_when_they_are_done(cli: Cli, tiny_work, tiny_data, layer_run):
    pattern = tiny_work.arguments[2]
    argv = ["preprocess", "--schema", "synthetic", "--input", pattern, "--out", tiny_data.path]
    settings = [s for s in tiny_work.arguments if s.startswith("preprocess.")]
    mark = (tiny_data.path / "summary.json").stat().st_mtime_ns
    result = cli(*argv, "--set", *settings, "--json").result
    assert result["fingerprint"] == tiny_data.fingerprint
    assert result["splits"]["train"]["rows"] == tiny_data.num_rows("train")
    assert (tiny_data.path / "summary.json").stat().st_mtime_ns == mark
    weights = (layer_run.path / "weights.npz").stat().st_mtime_ns
    trained = cli(
        "train", "--data", tiny_data.path, "--out", layer_run.path, "--set",
        *tiny_work.arguments[4:], "--json",
    ).result  # fmt: skip
    assert trained["test"]["auc"] == layer_run.read_json("metrics.json")["test"]["auc"]
    assert (layer_run.path / "weights.npz").stat().st_mtime_ns == weights


# The demo itself trains for minutes; here it meets the session's two runs instead.
def test_the_demo_prints_one_json_object(
    cli: Cli, tiny_data, layer_run, batch_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jobs.demo.product

    runs = {"layer": layer_run, "batch": batch_run}
    monkeypatch.setattr(jobs.demo.product, "_data", lambda out, rows: tiny_data)
    monkeypatch.setattr(jobs.demo.product, "_train", lambda data, norm, out: TrainedRun(runs[norm]))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "demo"
    outcome = cli("demo", "--out", out, "--json")
    result = outcome.result
    assert result["served"]["largest_difference"] <= 1e-5
    assert len(result["served"]["grpc"]) == len(result["served"]["rest"]) == 10
    for protocol in ("grpc", "rest"):
        assert result["served"][protocol] == pytest.approx(result["served"]["trained"], abs=1e-6)
    assert result["gate"]["layer"]["version"] == 1
    assert "accept_batch_gap" in result["gate"]["batch"]
    assert result["comparison"]["batch"]["batch gap, trained (logit)"] > 1e-3
    assert result["comparison"]["layer"]["batch gap, trained (logit)"] <= 1e-5
    assert "distance to Bayes AUC" in outcome.err, "the tables go to stderr"
    assert json.loads((out / "demo.json").read_text())["report"] == str(out / "report.html")
    report = (out / "report.html").read_text()
    assert report.count("data:image/png;base64,") >= 2
    (version,) = [p for p in (out / "models" / "ctr").iterdir() if p.name.isdigit()]
    listed = cli("versions", "--models", out / "models", "--name", "ctr", "--json").result
    assert listed["versions"][0]["version"] == int(version.name)
    assert listed["versions"][0]["live"] is True


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_demo_in_a_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobs.cli", "demo", "--out", str(tmp_path / "d")]
    done = subprocess.run(
        [*command, "--rows", "20000", "--json"],
        env=environment, capture_output=True, text=True, timeout=850, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["served"]["largest_difference"] <= 1e-5


@pytest.mark.parametrize("name", ["spec.json", "training.json", "weights.npz", "calibration.json"])
def test_training_again_makes_what_a_run_has_lost(
    name: str, cli: Cli, layer_run, tiny_data, copy_of
) -> None:
    run = copy_of(layer_run)
    (run.path / name).unlink()
    done = cli("train", "--data", tiny_data.path, "--out", run.path, "--set", *SETTINGS)
    assert done.code == 0, done.err
    again, lost = ((path / name).read_bytes() for path in (run.path, layer_run.path))
    if name == "training.json":  # it tells the speed too
        again, lost = (json.loads(content)["global_step"] for content in (again, lost))
    assert again == lost


def test_a_command_that_was_stopped_says_how_to_go_on(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(arguments: object) -> None:
        raise Interrupted("stopped by SIGTERM at step 7; run the same command to continue")

    monkeypatch.setattr("jobs.commands.versions.main", stopped)
    outcome = cli("versions", "--models", "m", "--name", "n")
    outcome.refused(143, "at step 7; run the same command to continue")


def test_every_argument_of_every_command_has_a_help_line() -> None:
    from jobs.command import commands

    for name, command in commands().items():
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        for action in parser._actions:
            assert action.help, f"{name} {action.dest}"
            assert len(action.help) > 5, f"{name} {action.dest}"


def test_an_unexpected_error_is_a_record_when_the_log_is_json(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jobs.show.choices

    def broken() -> None:
        raise RuntimeError("why")

    monkeypatch.setattr(jobs.show.choices, "choices", broken)
    with pytest.raises(RuntimeError, match="why"):
        cli("models")
    outcome = cli("models", "--log-format", "json")
    assert outcome.code == 1
    record = json.loads(outcome.err)
    assert record["level"] == "ERROR"
    assert "RuntimeError: why" in record["exception"]


def test_a_refusal_is_a_record_when_the_log_is_json(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("stats", tmp_path, "--log-format", "json")
    assert outcome.code == 2
    assert json.loads(outcome.err)["message"].startswith("clickparity: ")
