"""The blocks of the how-to pages are files that work: a norm, a model and a command, as the pages give them.

Each block with a file's name is written below a folder of its own, which is then part of the packages
that it names, in a process of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, fences
from tests.python_process import answer_of

_ADDED = """
import importlib, json, sys
for package in ("models.norms", "models.layers", "models.zoo", "jobs.commands"):
    folder = sys.argv[1] + "/" + package.replace(".", "/")
    importlib.import_module(package).__path__.append(folder)
"""
_LISTED = """
from jobs.command import commands
from models.config.listing import describe_models
listing = describe_models()
print(json.dumps({
    "models": [m.name for m in listing.models],
    "options": [o.path for entry in (*listing.models, *listing.norms) for o in entry.options],
    "norms": [n.name for n in listing.norms],
    "commands": list(commands()),
    "tensorflow": "tensorflow" in sys.modules,
}))
"""
_LOGITS = """
import numpy as np
import tensorflow as tf
from models.config.model import parse_model_config
from pipeline.records.encoded import EncodedSpec, IdFeature
from models.zoo import build_model
spec = EncodedSpec(("n1", "n2"), (IdFeature("c1", 7), IdFeature("c2", 9)))
config = parse_model_config({"name": "perceptron", "norm": "l2", "hidden_units": [4]})
model = build_model(config, spec)
inputs = {"numeric": tf.constant([[0.5, 1.0], [2.0, -1.0], [0.0, 3.0]]),
          "ids": tf.constant([[1, 2], [0, 8], [6, 0]])}
trained = model(inputs, training=True).numpy()
alone = model({key: value[1:2] for key, value in inputs.items()}, training=False).numpy()
print(json.dumps({"trained": trained.tolist(), "alone": alone.tolist(),
                  "weights": [v.name for v in model.trainable_variables]}))
"""
_RUN = """
from jobs.cli import main
sys.exit(main(["row-count", sys.argv[2], "--json"]))
"""


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the pages."""
    folder = tmp_path_factory.mktemp("added")
    for name in ("norm", "model", "command"):
        for fence in fences(DOCS / "howto" / f"{name}.md"):
            if fence.title:
                path = folder / fence.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(fence.text)
    return folder


def test_they_are_listed_without_tensorflow(added: Path) -> None:
    found = json.loads(answer_of(["-c", _ADDED + _LISTED, added], timeout_s=60))
    assert "perceptron" in found["models"]
    assert "l2" in found["norms"]
    assert {"model.norm.length", "model.perceptron.first_units"} <= set(found["options"])
    assert "row-count" in found["commands"]
    assert not found["tensorflow"]


def test_the_model_scores_with_the_norm_and_a_row_sees_no_other(added: Path) -> None:
    answer = answer_of(["-c", _ADDED + _LOGITS, added], timeout_s=120)
    found = json.loads(answer.strip().splitlines()[-1])
    assert len(found["trained"]) == 3
    assert found["alone"][0] == pytest.approx(found["trained"][1], abs=1e-6)
    assert any("mlp" in name for name in found["weights"])


def test_the_command_counts_the_rows_of_a_data_directory(added: Path, tmp_path: Path) -> None:
    summary = {"splits": {"train": {"rows": 12}, "validation": {"rows": 1}, "test": {"rows": 2}}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "_SUCCESS").write_text("0123456789abcdef")
    answer = answer_of(["-c", _ADDED + _RUN, added, tmp_path], timeout_s=60)
    assert json.loads(answer) == {"rows": 12}
