"""What is the caller's to mend: its exit code, one message, no traceback, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pyarrow.csv
import pytest

from tests.damage import flip_a_bit
from tests.jobs.conftest import Outcome, files_below

Cli = Callable[..., Outcome]

SCHEMA = """
name: mine
source: {kind: csv}
label: click
features:
  - {name: price, kind: numeric}
  - {name: site, kind: categorical}
split: {by: row, validation: 0.1, test: 0.2}
"""
GOOD_ROWS = "click,price,site\n" + "".join(f"{i % 2},{i}.5,s{i % 7}\n" for i in range(200))


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SCHEMA)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(GOOD_ROWS)
    return path


# ------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "argv, phrases",
    [
        (["--verbose"], ["COMMAND"]),
        (["trian"], ["trian", "train"]),
        (["synth", "--rows", "10"], ["--out"]),
        (["synth", "--out", "{tmp}/o", "--rows", "ten"], ["--rows", "ten"]),
        (["synth", "--out", "{tmp}/o", "--rows", "0"], ["num_rows", "0"]),
        (["synth", "--out", "{tmp}/o", "--rows", "9", "--ctr", "2"], ["ctr", "2"]),
        (["synth", "--out", "{tmp}/o", "--rows", "9", "--files", "0"], ["files", "0"]),
        (["synth", "--out", "{tmp}/o", "--rows", "9", "--seed", "-1"], ["seed", "-1"]),
        (["synth", "--out", "{tmp}/log.csv", "--rows", "9"], ["writable", "log.csv"]),
        (["evaluate", "--run", "{tmp}", "--sqlit", "test"], ["--sqlit", "evaluate --help"]),
        (["models", "stray"], ["stray"]),
        (["evaluate", "--run", "{tmp}/none"], ["config.yaml", "none", "clickparity train"]),
        (["evaluate", "--run", "{tmp}"], ["config.yaml"]),
        (["evaluate", "--run", "{tmp}/log.csv"], ["config.yaml", "log.csv"]),
        (["parity", "--run", "{tmp}"], ["config.yaml"]),
        (["export", "--run", "{tmp}", "--models", "{tmp}/m", "--name", "x"], ["config.yaml"]),
        (["publish", "--export", "{tmp}/none", "--models", "{tmp}/m", "--name", "x"], ["none"]),
        (["publish", "--export", "{tmp}", "--models", "{tmp}/m", "--name", "a/b"], ["a/b"]),
        (["versions", "--models", "{tmp}/none", "--name", "ctr"], ["ctr", "none"]),
        (["versions", "--models", "{tmp}", "--name", "../x"], ["../x"]),
        (["rollback", "--models", "{tmp}", "--name", "ctr"], ["ctr", "publish first"]),
        (["prune", "--models", "{tmp}", "--name", "ctr"], ["ctr", "publish first"]),
        (["prune", "--models", "{tmp}", "--name", "ctr", "--keep", "0"], ["live", "0"]),
        (["stats", "{tmp}"], ["_SUCCESS", "clickparity preprocess"]),
        (["stats", "{tmp}/none"], ["_SUCCESS"]),
        (["train", "--data", "{tmp}", "--out", "{tmp}/r"], ["data directory", "preprocess"]),
        (["train", "--data", "{tmp}/log.csv", "--out", "{tmp}/r"], ["data directory"]),
        (["serve", "--models", "{tmp}/none"], ["none"]),
        (["serve", "--models", "{tmp}/log.csv"], ["log.csv"]),
        (["demo", "--out", "{tmp}/log.csv"], ["writable", "log.csv"]),
        (["demo", "--out", "{tmp}/d", "--rows", "0"], ["rows", "0"]),
        (["predict", "--address", "nowhere", "--name", "x", "--input", "{tmp}/log.csv"],
         ["HOST:PORT", "nowhere"]),
        (["predict", "--address", "h:1", "--name", "x", "--input", "y", "--rows", "0"], ["--rows"]),
        (["predict", "--address", "h:1", "--name", "x", "--input", "y", "--protocol", "udp"],
         ["udp", "grpc"]),
    ],
)  # fmt: skip
def test_wrong_arguments(
    argv: list[str], phrases: list[str], cli: Cli, tmp_path: Path, log: Path
) -> None:
    before = files_below(tmp_path)
    cli(*[a.replace("{tmp}", str(tmp_path)) for a in argv]).refused(2, *phrases)
    assert files_below(tmp_path) == before


# ------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    "settings, phrases",
    [
        (["modle.name=dcn"], ["modle", "Did you mean 'model'?"]),
        (["model.name=dcn_v3"], ["dcn_v3", "Did you mean 'dcn_v2'?"]),
        (["model.nmae=dcn"], ["nmae", "Did you mean 'name'?"]),
        (["model.norm=layr"], ["layr", "Did you mean 'layer'?"]),
        (["model.norm.kind=layr"], ["layr", "Did you mean 'layer'?"]),
        (["train.global_batchsize=5"], ["Did you mean 'global_batch_size'?"]),
        (["train.global_batch_size=0"], ["train.global_batch_size", "0"]),
        (["train.global_batch_size=many"], ["train.global_batch_size", "many"]),
        (["train.loss=focl"], ["focl", "Did you mean 'focal'?"]),
        (["train=5"], ["train", "5", "mapping"]),
        (["model=5"], ["model", "5"]),
        (["preprocess=5"], ["preprocess", "5"]),
        (["preprocess.sede=5"], ["sede", "Did you mean 'seed'?"]),
        (["calibration=plat"], ["plat", "Did you mean 'platt'?"]),
        (["gate.min_auc=2"], ["gate.min_auc", "2"]),
        (["gate.minimum_auc=0.5"], ["minimum_auc", "Did you mean 'min_auc'?"]),
        (["export.accept_batch_gap=-1"], ["accept_batch_gap", "-1"]),
        (["export.name=a/b"], ["name", "a/b"]),
        (["schema.x=1"], ["schema"]),
        (["model.norm"], ["--set", "model.norm"]),
        (["=layer"], ["--set", "=layer"]),
        (["model..norm=layer"], ["model..norm"]),
        (["model.="], ["model."]),
        (["model.hidden_units=[1,"], ["model.hidden_units", "YAML"]),
    ],
)
def test_wrong_settings(
    settings: list[str], phrases: list[str], cli: Cli, tmp_path: Path, log: Path
) -> None:
    before = files_below(tmp_path)
    argv = ["run", "--input", log, "--workdir", tmp_path / "w", "--set", "schema=synthetic"]
    cli(*argv, *settings).refused(2, *phrases)
    assert files_below(tmp_path) == before
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "content, phrases",
    [
        ("model: {name: dcn\n", ["must be YAML"]),
        ("- a\n- b\n", ["mapping", "list"]),
        ("models: {}\n", ["models", "Did you mean 'model'?"]),
        ("schema: [a]\n", ["schema"]),
        ("schema: synthetic\nmodel: [dcn]\n", ["model"]),
        ("schema: synthetic\ntrain: {epochs: none}\n", ["train.epochs", "none"]),
        ("schema: synthetic\ngate: 3\n", ["gate", "3"]),
        ("schema: nosuch\n", ["nosuch", "Presets"]),
        ("schema: criteoo\n", ["Did you mean 'criteo'?"]),
        ("model: {name: dcn}\n", ["schema"]),
        (b"\xff\xfe\x00bin", ["must be YAML"]),
        (None, ["readable file"]),
        ("directory", ["directory"]),
    ],
)  # fmt: skip
def test_wrong_config_files(
    content: str | bytes | None, phrases: list[str], cli: Cli, tmp_path: Path, log: Path
) -> None:
    path = tmp_path / "pipeline.yaml"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    out = cli("run", "--config", path, "--input", log, "--workdir", tmp_path / "w")
    out.refused(2, *phrases)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "settings, phrases",
    [
        (["model.name=ad_image"], ["needs an image feature", "model.name=dcn_v2"]),
        (["model.name=dstn", "model.dstn.auxiliary=[[tgas]]"], ["'tgas'", "Did you mean 'tags'?"]),
        (["model.name=dstn", "model.dstn.target=[c13]"], ["categorical features", "'c13'"]),
        (
            ["model.name=finalmlp", "model.final_mlp.first_context=[c13]"],
            ["c13", "first_context"],
        ),
        (["model.name=dlrm", "schema=only_ids.yaml"], ["dlrm multiplies embeddings", "schema"]),
        (["train.early_stopping=true", "schema=only_ids.yaml"], ["validation rows", "split"]),
    ],
)
def test_a_model_that_the_schema_cannot_feed_is_refused_before_any_row_is_read(
    settings: list[str],
    phrases: list[str],
    cli: Cli,
    tmp_path: Path,
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("only_ids.yaml").write_text(
        "name: few\nlabel: click\nfeatures: [{name: c1, kind: categorical}]\n"
        "split: {by: row, validation: 0, test: 0.1}\n"
    )
    argv = ["run", "--input", log, "--workdir", tmp_path / "w", "--set", "schema=synthetic"]
    cli(*argv, *settings).refused(2, *phrases)
    assert not (tmp_path / "w").exists()


def test_a_run_needs_inputs(cli: Cli, tmp_path: Path) -> None:
    cli("run", "--set", "schema=criteo", "--workdir", tmp_path / "w").refused(2, "--input")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "extra, phrases",
    [
        (["--inptu", "x"], ["--inptu", "Did you mean '--input'?"]),
        (["--direct_num_worker=2"], ["Did you mean '--direct_num_workers'?"]),
        (["--direct_num_workers=two"], ["Beam", "two"]),
        (["stray"], ["stray"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "preprocess"])
def test_neither_our_option_nor_beams(
    command: str, extra: list[str], phrases: list[str], cli: Cli, tmp_path: Path, log: Path,
    schema: Path,
) -> None:  # fmt: skip
    where = ["--workdir", tmp_path / "w", "--set", f"schema={schema}", "--input", log]
    if command == "preprocess":
        where = ["--out", tmp_path / "w", "--schema", schema, "--input", log]
    # --verbose ends the list that --input takes.
    cli(command, *where, "--verbose", *extra).refused(2, *phrases)
    assert not (tmp_path / "w").exists() or not files_below(tmp_path / "w")


# ------------------------------------------------------------------------------- input data


@pytest.mark.parametrize(
    "rows, changes, code, phrases",
    [
        ("", {}, 4, ["empty"]),
        ("click,price,site\n", {}, 4, ["rows"]),
        (GOOD_ROWS, {"price": "cost"}, 2, ["cost"]),
        (GOOD_ROWS, {"price": "prise"}, 2, ["prise", "Did you mean 'price'?"]),
        (GOOD_ROWS, {"label: click": "label: clicked"}, 2, ["clicked", "Did you mean 'click'?"]),
        (GOOD_ROWS.replace("click,", "clique,"), {}, 2, ["click", "clique"]),
        (GOOD_ROWS.replace(",price", ",site"), {}, 2, ["price"]),
        (GOOD_ROWS.replace(".5,", " EUR,"), {}, 4, ["reject", "price"]),
        (GOOD_ROWS.replace("\n0,", "\nno,"), {}, 4, ["reject", "click"]),
        (GOOD_ROWS, {"kind: csv": "kind: parquet"}, 4, ["log.csv", "arquet"]),
        (GOOD_ROWS, {"kind: csv": "kind: cvs"}, 2, ["cvs", "Did you mean 'csv'?"]),
        (GOOD_ROWS, {"kind: numeric": "kind: numerc"}, 2, ["Did you mean 'numeric'?"]),
        (GOOD_ROWS, {"features:": "featurs:"}, 2, ["featur"]),
        (GOOD_ROWS, {"label: click": "label: price"}, 2, ["price"]),
        (GOOD_ROWS, {"kind: csv}": 'kind: csv, delimiter: "|"}'}, 2, ["click,price,site"]),
        (b"\x1f\x8b\x08\x00truncated", {}, 4, ["log.csv"]),
        (b"\x00\xff" * 5000, {}, (2, 4), ["log.csv"]),
    ],
)  # fmt: skip
def test_bad_input(
    rows: str | bytes,
    changes: dict[str, str],
    code: int | tuple[int, int],
    phrases: list[str],
    cli: Cli,
    tmp_path: Path,
    log: Path,
    schema: Path,
) -> None:
    log.write_bytes(rows if isinstance(rows, bytes) else rows.encode())
    text = SCHEMA
    for old, new in changes.items():
        text = text.replace(old, new)
    schema.write_text(text)
    before = files_below(tmp_path)
    outcome = cli("preprocess", "--schema", schema, "--input", log, "--out", tmp_path / "out" / "d")
    assert outcome.code in (code if isinstance(code, tuple) else (code,)), outcome.err
    outcome.refused(outcome.code, *phrases)
    assert files_below(tmp_path) == before
    assert not (tmp_path / "out" / "d").exists()


def test_bad_input_leaves_a_workdir_clean(
    cli: Cli, tmp_path: Path, log: Path, schema: Path
) -> None:
    log.write_text("click,price,site\n")
    work = tmp_path / "w"
    cli("run", "--input", log, "--workdir", work, "--set", f"schema={schema}").refused(4, "rows")
    assert files_below(work) == set()


@pytest.mark.parametrize(
    "name, phrases",
    [
        ("nothing-*.csv", ["match", "nothing-*.csv"]),
        ("absent.csv", ["match", "absent.csv"]),
        ("folder", ["match", "folder"]),
    ],
)
def test_inputs_that_are_no_files(name: str, phrases: list[str], cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    where = tmp_path / name
    out = tmp_path / "d"
    cli("preprocess", "--schema", "criteo", "--input", where, "--out", out).refused(2, *phrases)
    cli("run", "--set", "schema=criteo", "--input", where, "--workdir", out).refused(2, *phrases)
    assert not out.exists()


def test_outputs_that_cannot_be_written(cli: Cli, tmp_path: Path, log: Path, schema: Path) -> None:
    # A file where a directory should be: root ignores permissions.
    blocker = tmp_path / "blocker"
    blocker.write_text("mine")
    settings = ["--set", f"schema={schema}"]
    for work in (blocker, blocker / "below"):
        cli("run", "--input", log, "--workdir", work, *settings).refused(2, "writable", "blocker")
    for out in (blocker, blocker / "below"):
        outcome = cli("preprocess", "--schema", schema, "--input", log, "--out", out)
        outcome.refused(2, "blocker")
    assert blocker.read_text() == "mine"


def test_an_output_that_holds_something_else(
    cli: Cli, tmp_path: Path, log: Path, schema: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    outcome = cli("preprocess", "--schema", schema, "--input", log, "--out", tmp_path / "taken")
    outcome.refused(2, "taken", "Choose another directory")
    assert files_below(tmp_path / "taken") == {"thesis.txt"}


# ------------------------------------------------------------------------------- finished steps


def test_evaluate_refuses_splits_without_rows(cli: Cli, layer_run, tiny_data, copy_of, tmp_path):
    cli("evaluate", "--run", layer_run.path, "--split", "tset").refused(2, "tset", "test")
    emptied = tmp_path / "data"
    emptied.mkdir()
    for item in tiny_data.path.iterdir():
        if item.name != "summary.json":
            (emptied / item.name).symlink_to(item)
    summary = json.loads((tiny_data.path / "summary.json").read_text())
    summary["splits"]["test"]["rows"] = 0
    (emptied / "summary.json").write_text(json.dumps(summary))
    run = copy_of(layer_run, data_path=emptied)
    before = (run.path / "metrics.json").read_bytes()
    cli("evaluate", "--run", run.path).refused(2, "test split must have rows", "0 rows")
    assert (run.path / "metrics.json").read_bytes() == before


def test_data_that_is_gone_or_another(cli: Cli, layer_run, tiny_data, copy_of, tmp_path):
    gone = copy_of(layer_run, data_path=tmp_path / "gone")
    before = files_below(gone.path)
    cli("parity", "--run", gone.path).refused(2, "data directory", "gone")
    assert files_below(gone.path) == before, "a refused parity keeps the export that is there"
    other = tmp_path / "other"
    other.mkdir()
    (other / "_SUCCESS").write_text("0123456789abcdef\n")
    (other / "summary.json").write_text("{}")
    (gone.path / "config.yaml").write_text(
        (gone.path / "config.yaml").read_text().replace(str(tmp_path / "gone"), str(other))
    )
    message = cli("evaluate", "--run", gone.path).refused(2, "0123456789abcdef")
    assert tiny_data.fingerprint in message, "both fingerprints are named"


def test_a_shard_with_another_bit_is_bad_data(cli: Cli, layer_run, tiny_data, copy_of, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_data.path, data)
    for split in ("train", "test"):
        flip_a_bit(min((data / split).glob("part-*")))
    cli("train", "--data", data, "--out", tmp_path / "r").refused(4, "/train/part-0", "corrupted")
    assert not (tmp_path / "r" / "weights.npz").exists()
    run = copy_of(layer_run, data_path=data)
    before = files_below(run.path)
    cli("evaluate", "--run", run.path).refused(4, "/test/part-0", "Copy the directory again")
    assert files_below(run.path) == before


@pytest.mark.parametrize(
    "name",
    [
        "train/part-*",
        "test/part-*",
        "spec.json",
        "schema.yaml",
        "statistics/statistics.json",
        "statistics/vocabulary/c*.csv",
        "parity_sample/raw.arrow",
    ],
)
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_data_directory_that_was_copied_in_part(
    name, is_cut, cli: Cli, layer_run, tiny_data, copy_of, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(tiny_data.path, data)
    file = min(data.glob(name))
    os.truncate(file, file.stat().st_size // 2) if is_cut else file.unlink()
    run = copy_of(layer_run, data_path=data)
    before = files_below(run.path)
    for argv in (
        ["train", "--data", data, "--out", tmp_path / "r"],
        ["evaluate", "--run", run.path],
        ["parity", "--run", run.path],
        ["stats", data],
        ["drift", "--against", tiny_data.path, "--data", data],
    ):
        received = "bytes for" if is_cut else "missing"
        cli(*argv).refused(4, str(file), received, "Copy the directory again")
    assert files_below(run.path) == before
    assert not (tmp_path / "r").exists()


def test_a_run_directory_of_another_config(cli: Cli, layer_run, tiny_data):
    argv = ["train", "--data", tiny_data.path, "--out", layer_run.path]
    before = files_below(layer_run.path)
    cli(*argv, "--set", "model.name=dcn").refused(2, layer_run.fingerprint, "model.")
    assert files_below(layer_run.path) == before
    cli("train", "--data", tiny_data.path, "--out", layer_run.path / "config.yaml").refused(2)


def test_a_run_that_is_not_trained_yet(cli: Cli, layer_run, copy_of, tmp_path):
    run = copy_of(layer_run)
    (run.path / "weights.npz").unlink()
    cli("evaluate", "--run", run.path).refused(2, "weights.npz", "clickparity train")
    publish = ["export", "--run", run.path, "--models", tmp_path / "m", "--name", "ctr"]
    cli(*publish).refused(3, "weights.npz", "clickparity train")
    shutil.copy(layer_run.path / "weights.npz", run.path)
    (run.path / "parity.json").unlink()
    cli(*publish).refused(3, "parity.json", "clickparity parity")
    assert not (tmp_path / "m").exists()


def test_a_data_directory_without_training_rows_keeps_no_weights(cli: Cli, tiny_data, tmp_path):
    emptied = tmp_path / "data"
    emptied.mkdir()
    for item in tiny_data.path.iterdir():
        if item.name != "summary.json":
            (emptied / item.name).symlink_to(item)
    summary = json.loads((tiny_data.path / "summary.json").read_text())
    summary["splits"]["train"]["rows"] = 0
    (emptied / "summary.json").write_text(json.dumps(summary))
    cli("train", "--data", emptied, "--out", tmp_path / "r").refused(2, "train", "rows")
    assert not (tmp_path / "r" / "weights.npz").exists()


def test_an_export_without_a_manifest_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "saved_model.pb").write_bytes(b"graph")
    models = tmp_path / "models"
    argv = ["publish", "--export", tmp_path / "export", "--models", models, "--name", "ctr"]
    cli(*argv).refused(3, "manifest")
    assert not models.exists() or not files_below(models)


def test_rolling_back_to_what_is_not_there(cli: Cli, tiny_work) -> None:
    models = tiny_work.path / "models"
    where = ["--models", models, "--name", "ctr"]
    before = files_below(models)
    cli("rollback", *where).refused(2, "older version", "versions 1")
    cli("rollback", *where, "--to", "99").refused(2, "99")
    assert files_below(models) - {"ctr/.publish.lock"} == before - {"ctr/.publish.lock"}


def test_a_server_that_is_not_there_may_be_retried(cli: Cli, log: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        argv = ["predict", "--address", address, "--name", "ctr", "--input", log]
        cli(*argv, "--protocol", "rest").refused(1, address, "clickparity serve")


def test_a_port_that_is_taken(cli: Cli, tiny_work) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        argv = ["serve", "--models", tiny_work.path / "models", "--grpc-port", "0"]
        cli(*argv, "--rest-port", port).refused(2, port)


def test_a_demo_deletes_nobodys_models(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "models" / "ctr" / "1").mkdir(parents=True)
    (tmp_path / "models" / "ctr" / "1" / "saved_model.pb").write_bytes(b"mine")
    cli("demo", "--out", tmp_path, "--rows", "1000").refused(2, "models", "no demo made")
    assert files_below(tmp_path) == {"models/ctr/1/saved_model.pb"}


def test_the_good_rows_are_good(cli: Cli, tmp_path: Path, log: Path, schema: Path) -> None:
    """The refusals above are for their own faults, not for something wrong with the rows."""
    argv = ["preprocess", "--schema", schema, "--input", log, "--out", tmp_path / "d", "--json"]
    result = cli(*argv, "--direct_num_workers=1").result
    assert result["input_rows"] == 200
    assert result["rejected_rows"] == 0
    assert pyarrow.csv.read_csv(log).num_rows == 200
