"""One cell in a process of its own: `python cell.py CELL.json WORKDIR RESULT.json`.

The result is written last and whole: where it exists, the cell is done. The test logits lie beside
it as <name>.npy, for paired intervals between cells.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from benchmarks.quality.data import EncodedRows, data_directory, encoded_rows  # noqa: E402
from benchmarks.quality.plan import LIGHTGBM, LOGISTIC_REGRESSION, Cell, recipe  # noqa: E402
from models.run_directory import write_atomically  # noqa: E402
from pipeline.records.data_directory import DataDirectory  # noqa: E402

Array = NDArray[np.float64]


def against_truth(truth: Array, logits: Array, num_bins: int = 20) -> dict[str, float]:
    """Calibration against true probabilities [rows]: nothing here depends on drawn clicks."""
    from models.metrics import calibration_ratio, expected_calibration_error

    return {
        "prediction_over_truth": calibration_ratio(truth, logits=logits),
        "calibration_error": expected_calibration_error(truth, logits=logits, num_bins=num_bins),
    }


def ranking(rows: EncodedRows, logits: Array) -> dict[str, float]:
    """AUC and its distance to the best possible on the same rows."""
    from models.metrics import auc

    bayes = auc(rows.label, np.log(rows.truth) - np.log1p(-rows.truth))
    own = auc(rows.label, logits)
    return {"auc": own, "bayes_auc": bayes, "distance": bayes - own}


def network(cell: Cell, data: DataDirectory, run_path: Path) -> tuple[Array, dict[str, Any]]:
    """Trains, calibrates and scores by the library's own steps; logits are the calibrated ones."""
    from jobs.config import load_run_config
    from jobs.steps import train_run
    from models.training.scoring import score_split

    settings = [
        f"{section}.{key}={json.dumps(value)}"
        for section, options in recipe(cell).items()
        for key, value in options.items()
    ]
    run = train_run(data, load_run_config(None, settings), run_path, progress=False)
    trained = run.run.read_json("training.json")
    scored = score_split(run.model, data, "test", 32_768)
    calibration = run.calibration
    calibrated = np.asarray(calibration.logits(scored.logit), np.float64)
    truth = scored.carry[:, data.spec.carry.index("true_probability")].astype(np.float64)
    corrected = calibration.correction.logits(scored.logit).numpy().astype(np.float64)
    return calibrated, {
        "epochs": trained["epochs"],
        "best_epoch": trained["best_epoch"] + 1,
        "examples_per_s": trained["examples_per_s"],
        "history": trained["history"],
        "raw": against_truth(truth, scored.logit.astype(np.float64)),
        "corrected": against_truth(truth, corrected),
        "loss": trained["loss"],
    }


def baseline(cell: Cell, data: DataDirectory, test: EncodedRows) -> tuple[Array, dict[str, Any]]:
    """Logistic regression or LightGBM."""
    from benchmarks.quality.baselines import lightgbm_logits, logistic_regression_logits

    train, validation = (encoded_rows(data, split) for split in ("train", "validation"))
    if cell.model == LOGISTIC_REGRESSION:
        logits, chosen = logistic_regression_logits(train, validation, test, data.spec)
    else:
        logits, chosen = lightgbm_logits(train, validation, test, data.spec, cell.seed)
    return np.asarray(logits, np.float64), {"chosen": chosen}


def main(argv: list[str]) -> int:
    cell_path, workdir, result_path = map(Path, argv)
    cell = Cell.from_dict(json.loads(cell_path.read_text()))
    started_s = time.perf_counter()
    data = DataDirectory.open(data_directory(workdir, cell.log))
    test = encoded_rows(data, "test")
    run_path = workdir / "runs" / cell.name
    shutil.rmtree(run_path, ignore_errors=True)
    if cell.model in (LOGISTIC_REGRESSION, LIGHTGBM):
        logits, details = baseline(cell, data, test)
    else:
        logits, details = network(cell, data, run_path)
    np.save(result_path.with_suffix(".npy"), logits.astype(np.float32))
    result = {
        "cell": cell.to_dict(),
        "recipe": recipe(cell),
        "rows": {split: data.num_rows(split) for split in ("train", "validation", "test")},
        "clicks": {
            split: round(data.summary["splits"][split]["weight"] * data.label_rate(split))
            for split in ("train", "validation", "test")
        },
        **ranking(test, logits),
        "calibrated": against_truth(test.truth, logits),
        **details,
        "wall_s": time.perf_counter() - started_s,
        "processor_s": sum(os.times()[:2]),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    shutil.rmtree(run_path, ignore_errors=True)
    labels = workdir / "data" / f"{cell.log.name}.labels.npy"
    if not labels.exists():
        beside = labels.with_suffix(f".{os.getpid()}.npy")
        np.save(beside, test.label)
        beside.replace(labels)
    write_atomically(result_path, json.dumps(result, indent=1).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
