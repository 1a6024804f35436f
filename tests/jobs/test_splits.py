"""Splits without weight or without a click: checked before training, with a stated behaviour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs.conftest import Outcome

Cli = Callable[..., Outcome]
SCHEMA = """
name: mine
source: {kind: csv}
label: click
weight: w
features:
  - {name: site, kind: categorical}
split: {by: column, column: part}
"""
SMALL = ["model.hidden_units=[4]", "model.embedding_dim=2", "train.global_batch_size=16"]


def _data(cli: Cli, folder: Path, **rules: tuple[str, str]) -> Path:
    """60 rows a split; rules: split -> (click, weight), each a digit or `i` for every third row."""
    rows = ["click,w,site,part"]
    for part in ("train", "validation", "test"):
        click, weight = rules.get(part, ("i", "1"))
        for i in range(60):
            label = str(int(i % 3 == 0)) if click == "i" else click
            rows.append(f"{label},{weight},s{i % 5},{part}")
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    (folder / "s.yaml").write_text(SCHEMA)
    data = folder / "data"
    argv = ["--schema", folder / "s.yaml", "--input", folder / "log.csv", "--out", data]
    assert cli("preprocess", *argv).code == 0
    return data


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_no_weight_is_refused_before_training(split: str, cli: Cli, tmp_path: Path) -> None:
    data = _data(cli, tmp_path, **{split: ("i", "0")})
    out = cli("train", "--data", data, "--out", tmp_path / "run", "--set", *SMALL)
    out.refused(4, f"the {split} split must have weight", "60 rows", "`weight`")
    assert not (tmp_path / "run" / "history.jsonl").exists()


@pytest.mark.parametrize("click, words", [("0", "no click"), ("1", "nothing but clicks")])
def test_one_kind_of_label_in_training_is_refused(
    click: str, words: str, cli: Cli, tmp_path: Path
) -> None:
    data = _data(cli, tmp_path, train=(click, "1"))
    out = cli("train", "--data", data, "--out", tmp_path / "run", "--set", *SMALL)
    out.refused(4, "the train split must hold clicks", words)


def test_no_click_in_validation_or_test_is_said_and_trained(cli: Cli, tmp_path: Path) -> None:
    data = _data(cli, tmp_path, validation=("0", "1"), test=("0", "1"))
    argv = ["train", "--data", data, "--set", *SMALL]
    out = cli(*argv, "--out", tmp_path / "run")
    assert out.code == 0, out.err
    assert "the validation split holds no click in 60 rows: no AUC there" in out.err
    assert "the test split holds no click in 60 rows" in out.err
    stop = cli(*argv, "train.early_stopping=true", "--out", tmp_path / "stopping")
    stop.refused(2, "early stopping by AUC", "train.early_stopping.metric=log_loss")
    good = [*argv, "train.early_stopping.metric=log_loss", "--out", tmp_path / "by_loss"]
    assert cli(*good).code == 0
