"""Batch prediction: the online numbers, every row accounted for, the same bytes with two workers."""

import contextlib
import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from jobs.scoring import export_of, score_files
from pipeline.errors import ConfigError, DataError
from pipeline.input_listing import list_inputs
from serving import batch_scoring
from serving.export.manifest import MANIFEST_PATH
from serving.loader.model_session import ModelSession

PARTS = "part-*.parquet"


@pytest.fixture(scope="module")
def export_dir(layer_run):
    return layer_run.path / "export"


@pytest.fixture(scope="module")
def scored(export_dir, tiny_log, tmp_path_factory):
    """(directory, summary) of the whole tiny log, cut into many blocks."""
    out = tmp_path_factory.mktemp("scores") / "all"
    return out, score_files(export_dir, [str(tiny_log / "*.csv")], out, block_bytes=100_000)


def read(out):
    parts = [pq.read_table(path).to_pandas() for path in sorted(out.glob(PARTS))]
    return pd.concat(parts).sort_values(["file", "row"], ignore_index=True)


def test_every_row_has_the_score_of_the_online_model(scored, export_dir, tiny_log):
    from serving.loader.fresh_process import score_in_fresh_process

    out, summary = scored
    table = read(out)
    files = sorted(tiny_log.glob("*.csv"))
    assert summary["parts"] == len(list(out.glob(PARTS))) > 2
    assert table["file"].unique().tolist() == [str(f) for f in files]
    picked = [0, 1, 1500, 2999]
    inputs = json.loads((export_dir / MANIFEST_PATH).read_text())["extra"]["inputs"]
    requests = []
    for file in files:
        # Read here by pandas, so that neither our reader nor its row numbers are taken on trust.
        raw = pd.read_csv(file, dtype=str, keep_default_na=False)
        assert table["row"][table["file"] == str(file)].tolist() == list(range(len(raw)))
        request = {}
        for column in inputs["numbers"]:
            values = [float(v) if v else np.nan for v in raw[column].iloc[picked]]
            request[column] = np.array(values, np.float32)
        for column in inputs["texts"]:
            request[column] = np.array([v.encode() for v in raw[column].iloc[picked]], object)
        requests.append(("serving_default", request))
    for file, answer in zip(files, score_in_fresh_process(export_dir, requests), strict=True):
        mine = table[table["file"] == str(file)].iloc[picked]
        np.testing.assert_allclose(mine["logit"], answer["logit"], atol=1e-5, rtol=0)
        np.testing.assert_allclose(mine["probability"], answer["probability"], atol=1e-6, rtol=0)
    assert table["logit"].nunique() > 1000


def test_small_chunks_and_batches_change_no_row(
    scored, export_dir, tiny_log, tmp_path, monkeypatch
):
    monkeypatch.setattr(batch_scoring, "_CHUNK_BYTES", 30_000)
    monkeypatch.setattr(batch_scoring, "BATCH_SIZE", 64)
    sizes = []
    predict = ModelSession.ask

    def counted(self, name, inputs, outputs):
        sizes.append(len(next(iter(inputs.values()))))
        return predict(self, name, inputs, outputs)

    monkeypatch.setattr(ModelSession, "ask", counted)
    out = tmp_path / "small"
    summary = score_files(export_dir, [str(tiny_log / "*.csv")], out, block_bytes=100_000)
    assert max(sizes) == 64 and sum(sizes) == summary["scored_rows"]
    assert sum(size < 64 for size in sizes) > summary["parts"]  # a block is several chunks
    mine, whole = read(out), read(scored[0])
    pd.testing.assert_frame_equal(mine[["file", "row"]], whole[["file", "row"]])
    np.testing.assert_allclose(mine["logit"], whole["logit"], atol=1e-5, rtol=0)


def test_keras_in_memory_says_the_same(scored, layer_run, tiny_data):
    """The test split's labels and weights are shuffled; its logits as a set must be among the scores."""
    import tensorflow as tf

    from models.trained_run import TrainedRun
    from models.training.scoring import score_split

    raw = score_split(layer_run.load_model(dropout=0.0), tiny_data, "test")
    logits = np.asarray(TrainedRun(layer_run).calibration.logits(tf.constant(raw.logit)))
    found = np.sort(read(scored[0])["logit"].to_numpy())
    place = np.clip(np.searchsorted(found, logits), 1, len(found) - 1)
    nearest = np.minimum(np.abs(found[place] - logits), np.abs(found[place - 1] - logits))
    assert nearest.max() <= 1e-5


def test_two_workers_write_the_same_bytes(scored, export_dir, tiny_log, tmp_path):
    options = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    inputs = [str(tiny_log / "*.csv")]
    score_files(export_dir, inputs, tmp_path / "two", block_bytes=100_000, beam_options=options)
    one = {path.name: path.read_bytes() for path in scored[0].glob(PARTS)}
    two = {path.name: path.read_bytes() for path in (tmp_path / "two").glob(PARTS)}
    assert one == two


def test_every_block_leaves_the_mark_that_its_progress_counts(export_dir, tiny_log, tmp_path):
    shown = []

    @contextlib.contextmanager
    def progress(phase, marks, num_blocks):
        yield
        names = [mark.name.split("-") for mark in marks.iterdir()]
        shown.append((phase, {name[0] for name in names}, len(names), num_blocks))
        shown.append(sum(int(name[2]) for name in names))

    summary = score_files(
        export_dir,
        [str(tiny_log / "*.csv")],
        tmp_path / "shown",
        block_bytes=100_000,
        progress=progress,
    )
    (phase, prefixes, marks, blocks), rows = shown
    assert (phase, prefixes, marks) == ("score", {"score"}, blocks)
    assert rows == summary["input_rows"]
    assert not list(tmp_path.glob("**/beam-*"))


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(scored, export_dir, tiny_log, tmp_path):
    options = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    inputs = [str(tiny_log / "*.csv")]
    score_files(export_dir, inputs, tmp_path / "two", block_bytes=100_000, beam_options=options)
    one = {path.name: path.read_bytes() for path in scored[0].glob(PARTS)}
    assert one == {path.name: path.read_bytes() for path in (tmp_path / "two").glob(PARTS)}


@pytest.fixture
def with_bad_rows(tiny_log, tmp_path):
    """60 rows, of which the 11th has a number that is none and the 21st a column too few."""
    lines = sorted(tiny_log.glob("*.csv"))[0].read_text().splitlines()[:61]
    column = lines[0].split(",").index("n1")
    fields = lines[11].split(",")
    fields[column] = "twelve"
    lines[11], lines[21] = ",".join(fields), lines[21].rsplit(",", 1)[0]
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_nothing_is_lost(with_bad_rows, export_dir, tmp_path):
    out = tmp_path / "out"
    summary = score_files(export_dir, [str(with_bad_rows)], out, max_reject_rate=0.1)
    assert (summary["input_rows"], summary["scored_rows"], summary["rejected_rows"]) == (60, 58, 2)
    assert json.loads((out / "summary.json").read_text()) == summary
    # A rejected row keeps its number: those after it are not shifted.
    assert read(out)["row"].tolist() == [i for i in range(60) if i not in (10, 20)]
    lines = [line for f in out.glob("rejects/*") for line in f.read_text().splitlines()]
    assert ["twelve" in json.loads(line)["raw"] for line in lines] == [True, False]


def test_too_many_rejects_are_bad_data_and_leave_nothing(with_bad_rows, export_dir, tmp_path):
    with pytest.raises(DataError, match=r"unreadable.*2 of 60"):
        score_files(export_dir, [str(with_bad_rows)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_label_is_not_needed(tiny_log, export_dir, tmp_path, scored):
    raw = pd.read_csv(sorted(tiny_log.glob("*.csv"))[0], dtype=str, keep_default_na=False)[:40]
    path = tmp_path / "unlabelled.csv"
    raw.drop(columns=["click", "true_probability"]).to_csv(path, index=False)
    code = main(
        [
            "score",
            "--model",
            str(export_dir),
            "--input",
            str(path),
            "--format",
            "csv",
            "--out",
            str(tmp_path / "out"),
            "--json",
        ]
    )
    assert code == 0
    table = pd.read_csv(next((tmp_path / "out").glob("part-*.csv")), dtype={"logit": np.float32})
    expected = read(scored[0])["logit"].iloc[:40]
    np.testing.assert_allclose(table["logit"], expected, atol=1e-5, rtol=0)


def test_what_is_done_is_not_done_again(scored, export_dir, tiny_log, monkeypatch):
    import serving.batch_scoring as batch_scoring

    monkeypatch.setattr(batch_scoring, "run_scoring", lambda *_, **__: pytest.fail("scored again"))
    out, summary = scored
    inputs = [str(tiny_log / "*.csv")]
    assert score_files(export_dir, inputs, out, block_bytes=100_000) == summary
    with pytest.raises(ConfigError, match="must be new, empty"):
        score_files(export_dir, inputs[:1], out, block_bytes=100_000, output="csv")


def test_a_reject_limit_is_held_against_finished_scores(
    with_bad_rows, export_dir, tmp_path, monkeypatch
):
    inputs, out = [str(with_bad_rows)], tmp_path / "out"
    summary = score_files(export_dir, inputs, out, max_reject_rate=0.1)
    monkeypatch.setattr(batch_scoring, "run_scoring", lambda *_, **__: pytest.fail("scored again"))
    assert score_files(export_dir, inputs, out, max_reject_rate=0.2) == summary
    with pytest.raises(DataError, match=r"unreadable.*2 of 60"):
        score_files(export_dir, inputs, out)


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_scores_that_are_not_as_they_were_written_are_made_again(
    damage, scored, export_dir, tiny_log, tmp_path
):
    out = tmp_path / "scores"
    shutil.copytree(scored[0], out)
    part = min(out.glob(PARTS))
    part.unlink() if damage == "deleted" else part.write_bytes(part.read_bytes()[:-4])
    inputs = [str(tiny_log / "*.csv")]
    assert score_files(export_dir, inputs, out, block_bytes=100_000) == scored[1]
    whole = {path.name: path.read_bytes() for path in scored[0].glob(PARTS)}
    assert {path.name: path.read_bytes() for path in out.glob(PARTS)} == whole


def rename_over(path):
    beside = path.with_suffix(".new")
    shutil.copy(path, beside)
    beside.rename(path)


@pytest.mark.parametrize("moment", ["listed", "read", "scored"])
@pytest.mark.parametrize(
    "change",
    [lambda path: os.truncate(path, 5000), rename_over, os.utime, os.unlink],
    ids=["cut", "rotated", "touched", "deleted"],
)
def test_input_that_changes_is_not_scored(
    change, moment, export_dir, tiny_log, tmp_path, monkeypatch
):
    path = tmp_path / "in" / "log.csv"
    path.parent.mkdir()
    shutil.copy(min(tiny_log.glob("*.csv")), path)
    os.utime(path, ns=(1, 10**18))
    listing = list_inputs([str(path)])
    if moment == "listed":
        change(path)
    predict, predicted = ModelSession.ask, []

    def hook(self, name, inputs, outputs):
        if moment == "read" and not predicted:
            change(path)
        predicted.append(name)
        return predict(self, name, inputs, outputs)

    def finish(summary, limit):
        if moment == "scored":
            change(path)

    monkeypatch.setattr(ModelSession, "ask", hook)
    monkeypatch.setattr(batch_scoring, "check_reject_rate", finish)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=f"{path}: listed with .* Run again when nobody writes"):
        score_files(export_dir, listing, tmp_path / "out" / "scores")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_model_may_be_a_models_directory(tiny_work):
    live = export_of(tiny_work.path / "models" / "ctr")
    assert live.name == "1"
    assert (live / "saved_model.pb").is_file()
    with pytest.raises(ConfigError, match="must name an export"):
        export_of(tiny_work.path)


def test_an_export_without_its_schema_says_what_to_do(export_dir, tiny_log, tmp_path):
    from serving.export.manifest import verify_manifest, write_manifest

    old = tmp_path / "old"
    shutil.copytree(export_dir, old)
    (old / "assets.extra" / "schema.yaml").unlink()
    manifest = verify_manifest(export_dir)
    write_manifest(old, fingerprint=manifest.fingerprint, extra=manifest.extra)
    with pytest.raises(ConfigError, match="--schema"):
        score_files(old, [str(tiny_log / "*.csv")], tmp_path / "out")
    criteo = tmp_path / "criteo.tsv"
    criteo.write_text("\t".join(["0"] + ["1"] * 39) + "\n")
    with pytest.raises(ConfigError, match="model's inputs"):
        score_files(old, [str(criteo)], tmp_path / "out", schema="criteo")
