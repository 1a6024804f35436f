"""A model of two new files and a norm of two are picked up everywhere, and no old file is touched.

They lie in `additions`; `additions/added.py` puts them beside the house's own.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.python_process import answer_of

ROOT = Path(__file__).resolve().parents[2]
ADDED = "tests.contracts.additions.added"
CHOSEN = (
    "l2 and (perceptron or dcn_v2 or test_norms or test_placements)"
    " or perceptron and (test_defaults or test_few_features or test_a_traced or layer)"
)
USE = f"""
import json, sys
from pathlib import Path
import {ADDED}
from jobs.cli import main
main(["models", "--json"])
assert "tensorflow" not in sys.modules
from models.run_directory import RunDirectory
from tests.models.training.tiny_training import tiny_training
model = {{"name": "perceptron", "norm": {{"kind": "l2", "length": 2.0}}, "cross": None,
    "perceptron": {{"first_units": 6}}}}
tiny_training(Path(sys.argv[1]), model=model)
run = RunDirectory.open(Path(sys.argv[1]))
shapes = {{v.name: list(v.shape) for v in run.load_model().weights}}
print(json.dumps({{"kind": run.model_config.norm.kind, "length": run.model_config.norm.length,
    "shapes": shapes}}))
"""


def test_the_contract_tests_run_over_them():
    command = [sys.executable, "-m", "pytest", "-q", "-rp", "-p", ADDED, "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-k", CHOSEN, "tests/contracts/test_models.py", "tests/contracts/test_norms.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = set(re.findall(r"^PASSED \S+::(\S+)$", done.stdout, re.MULTILINE))
    for test in (
        "one_step_reaches_every_weight_and_lowers_the_loss",
        "mode_parity",
        "batch_parity",
    ):
        assert {f"test_{test}[perceptron-l2]", f"test_{test}[dcn_v2-l2]"} <= passed
    for test in (
        "keeps_the_shape_and_stays_finite_at_every_scale",
        "round_trips_through_its_config",
    ):
        assert {f"test_{test}[l2-{axes}]" for axes in ("units", "fields", "image")} <= passed
    assert "test_a_traced_model_takes_any_batch_size[perceptron]" in passed
    assert "test_on_units_exactly_the_degenerate_norms_are_refused[l2-8-1]" in passed


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    """(what `clickparity models` lists, the run that a training left, its directory)."""
    run = tmp_path_factory.mktemp("added") / "run"
    run.mkdir()
    lines = answer_of(["-c", USE, run], timeout_s=200).strip().splitlines()
    listed, trained = (json.loads(line) for line in lines if line.startswith("{"))
    return listed, trained, run


def test_clickparity_models_lists_them_with_their_options(answers):
    listed, _, _ = answers
    (model,) = (m for m in listed["models"] if m["name"] == "perceptron")
    assert (model["title"], model["paper"]) == ("An MLP alone", "Rosenblatt 1958")
    assert [o["path"] for o in model["options"]] == ["model.perceptron.first_units"]
    assert model["options"][0]["line"] == "width of the layer in front of hidden_units."
    (norm,) = (n for n in listed["norms"] if n["name"] == "l2")
    assert [(o["path"], o["default"]) for o in norm["options"]] == [("model.norm.length", 3.0)]
    (kind,) = (o for o in listed["norm_options"] if o["path"] == "model.norm.kind")
    assert "l2" in kind["values"].split(" | ")


def test_a_training_runs_and_its_directory_is_read_again(answers):
    _, trained, run = answers
    assert (trained["kind"], trained["length"]) == ("l2", 2.0)
    with np.load(run / "weights.npz") as weights:
        shapes = sorted(list(weights[name].shape) for name in weights.files)
    assert [6, 8] in shapes  # first_units to hidden_units
    assert [6, 8] in trained["shapes"].values()
