"""Every benchmark runs from its command to its figures, at a tiny size, with the peers that are there."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEERS = ("CLICKPARITY_TFT_PYTHON", "CLICKPARITY_DEEPCTR_PYTHON", "CLICKPARITY_TORCH_PYTHON")
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in (*PEERS, "PYTHONPATH")}


def figures(tmp_path: Path, name: str, *options: str) -> tuple[dict, str]:
    """The JSON that a benchmark leaves, and what it writes; started in a foreign folder."""
    out = tmp_path / f"{name}.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--tiny", *options, "--out", str(out)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return json.loads(out.read_text()), done.stdout + done.stderr


def test_preprocess(tmp_path: Path):
    found, text = figures(tmp_path, "preprocess")
    assert found["results"]["clickparity, 1 worker"]["runs"][0][0]["rows"] == 1000
    assert found["results"]["Beam, a row at a time"]["runs"][0][0]["rows"] == 100
    assert found["results"]["profile"]["phases"] and not found["results"]["profile"]["gone"]
    assert found["results"]["read_packed:512"]["rows_per_s"] > 0
    assert "TensorFlow Transform: skipped; set CLICKPARITY_TFT_PYTHON" in text


def test_training(tmp_path: Path):
    found, text = figures(tmp_path, "training")
    for name in ("matrix products / step", "in memory / from shards"):
        assert found["results"][f"{name} at 26000"]["wall_ms"]["ratio"] > 0
    assert "DeepCTR DCN: skipped; set CLICKPARITY_DEEPCTR_PYTHON" in text


def test_serving(tmp_path: Path):
    found, _ = figures(tmp_path, "serving")
    assert found["server"]["requests"] > 0 and found["server"]["wrong_scores"] == 0
    assert found["server"]["errors"] == 0 and found["server"]["swaps"] > 0
    assert found["scoring"]["score_rows_per_s"] > 0
    assert "skipped" in found["latency"] or found["latency"]["median_us"]["bare"]["1"] > 0


@pytest.mark.parametrize(
    "only", ["sequences", pytest.param("images", marks=pytest.mark.slow)]
)  # both go the same way; the pictures take 20 s more
def test_model_inputs(tmp_path: Path, only: str):
    if only == "images" and not os.environ.get("CLICKPARITY_SAMPLE_DATA"):
        pytest.skip("CLICKPARITY_SAMPLE_DATA is not set: no pictures")
    found, _ = figures(tmp_path, "model_inputs", "--only", only, "--parallel", "2")
    models = found["results"][only] if only == "sequences" else found["results"][only]["models"]
    ours = next(model for model in models.values() if "gain" in model)
    assert ours["low"] < ours["gain"] < ours["high"] and ours["detectable"] > 0


def test_model_quality(tmp_path: Path):
    found, text = figures(tmp_path, "model_quality", "--parallel", "2", "--workdir", str(tmp_path))
    models = {cell["cell"]["model"]: cell for cell in found["curve_cells"]}
    assert models["dcn_v2"]["calibrated"]["prediction_over_truth"] > 0
    assert ("lightgbm" in models) == (importlib.util.find_spec("lightgbm") is not None)
    assert ("lightgbm: skipped; pip install lightgbm" in text) == ("lightgbm" not in models)
    assert len(found["norm_cells"]) == len(found["calibration_cells"]) == 1
    assert (tmp_path / "quality.png").stat().st_size > 0


def test_all_says_what_was_skipped_and_what_failed(tmp_path: Path, monkeypatch, capfd):
    from benchmarks import all as every

    monkeypatch.setattr(every, "HERE", tmp_path)
    (tmp_path / "preprocess.py").write_text("print('a peer: skipped; pip install it')")
    (tmp_path / "training.py").write_text("raise SystemExit(1)")
    (tmp_path / "model_quality.py").write_text("raise SystemExit(3)")
    names = ["preprocess", "training", "model_quality"]
    assert every.main(["--tiny", "--out", str(tmp_path / "out"), "--only", *names]) == 1
    lines = capfd.readouterr().out.split("== all\n")[1].splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == [
        "preprocess: done",
        "    a peer: skipped; pip install it",
        "training: FAILED (exit 1)",
        "model_quality: done, a bar is missed",
    ]
    assert every.main(["--out", str(tmp_path / "out"), "--only", "preprocess"]) == 0


def test_recipe(tmp_path: Path):
    found, text = figures(tmp_path, "recipe", "--workdir", str(tmp_path / "work"))
    (log,) = found["logs"]
    assert {"default", "one epoch, last iterate"} <= log["metrics"].keys()
    assert {(c["ours"], c["metric"]) for c in log["comparisons"]} == {
        ("default", "auc"),
        ("default", "log_loss"),
    }
    assert 1.0 <= log["steps"] <= 1.5
    assert "| synthetic tiny" in text
