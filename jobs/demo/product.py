"""`make demo`: the whole product on a synthetic log, from raw clicks to a served probability.

Two models that differ in their normalization alone are trained on the same rows; both are proved,
one passes the gate, is published, served and asked. The report shows what was measured.
"""

from __future__ import annotations

import functools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from jobs.config import RunConfig, load_run_config
from jobs.demo.report import write_demo_report
from jobs.server_process import served
from jobs.show.progress import block_progress, say
from jobs.show.tables import table
from models.evaluation import Evaluation
from models.run_steps import evaluate_run
from models.trained_run import TrainedRun
from pipeline.errors import ClickparityError, ConfigError, GateError
from pipeline.records.data_directory import DataDirectory
from pipeline.records.encoded import model_inputs
from pipeline.schema import FeatureSchema
from pipeline.step_directory import make_writable
from serving.gates import GateConfig
from serving.parity.outcome import ParityReport
from serving.run_steps import Published, prove_run, publish_run

__all__ = ["run_demo"]

_MODEL = "ctr"
_SETTINGS = [
    "model.name=dcn_v2",
    "model.hidden_units=[128, 64]",
    "model.embedding_dim=8",
    "train.global_batch_size=256",
    "train.learning_rate=0.002",
    "train.embedding_learning_rate=0.1",
    f"export.name={_MODEL}",
]
_NORMS = ("layer", "batch")
_ASKED = 10


def run_demo(
    out: Path, num_rows: int, *, tables_to_stderr: bool = False
) -> tuple[dict[str, Any], str]:
    """Runs the demo; finished steps are not repeated.

    Args:
        out: a new directory, or that of an earlier demo.
        num_rows: of the log.
        tables_to_stderr: keep stdout for the result alone.

    Raises:
        ConfigError: `out` holds what no demo made, or too few rows.
    """
    started = time.monotonic()
    make_writable(out)
    data = _data(out, num_rows)
    runs: dict[str, TrainedRun] = {}
    parities: dict[str, ParityReport] = {}
    metrics: dict[str, Evaluation] = {}
    for i, norm in enumerate(_NORMS):
        say(f"[{3 + i}/7] train and prove DCN-v2 with {norm} norm")
        run = _train(data, norm, out)
        runs[norm] = run
        metrics[norm] = evaluate_run(run)
        parities[norm] = prove_run(run, say=say)
    comparison = _comparison(metrics, parities)
    # With --json, stdout holds the one object and nothing else.
    show = say if tables_to_stderr else functools.partial(print, flush=True)
    show(_comparison_table(comparison))
    say("[5/7] the gate: batch norm is refused, layer norm is published")
    refusal = _refused(runs["batch"], metrics["batch"], out)
    show(f"gate: batch norm refused: {refusal}")
    published = _publish(runs["layer"], metrics["layer"], out)
    show(f"gate: layer norm: {published.message}")
    say(f"[6/7] serve it and ask for {_ASKED} raw rows")
    asked = _ask(runs["layer"], data, out)
    show(_asked_table(asked))
    say("[7/7] report")
    report = write_demo_report(out / "report.html", data, runs, metrics, parities, asked, refusal)
    took_s = time.monotonic() - started
    result = {
        "comparison": comparison,
        "gate": {"batch": refusal, "layer": published.to_json()},
        "served": asked,
        "report": str(report),
        "took_s": round(took_s, 1),
    }
    (out / "demo.json").write_text(json.dumps(result, indent=1, default=str) + "\n")
    if asked["largest_difference"] > 1e-5:
        raise GateError(
            "served logits must equal the training-time ones within 1e-5",
            asked["largest_difference"],
        )
    return result, f"report: {report}   ({took_s:.0f} s)"


# ------------------------------------------------------------------------------------- steps


def _data(out: Path, rows: int) -> DataDirectory:
    """The log and its data directory; made anew when there are none for this many rows."""
    from pipeline.preprocessing.job import preprocess
    from pipeline.synthetic.log import SyntheticLog, write_log

    log = SyntheticLog(num_rows=rows)  # refuses a bad --rows before anything is deleted
    log_dir = out / "log"
    marker, ours = log_dir / f".rows-{rows}", out / ".clickparity-demo"
    if not marker.exists():
        made = [out / name for name in ("log", "data", "runs", "models")]
        taken = [path for path in made if path.exists()]
        if taken and not ours.exists():
            raise ConfigError(
                "--out must be new or hold an earlier demo, which is then replaced",
                f"{taken[0]}, which no demo made",
                "Choose another directory.",
            )
        ours.touch()
        for old in made:
            shutil.rmtree(old, ignore_errors=True)
        say(f"[1/7] a click log of {rows:,} rows with known true probabilities")
        log_dir.mkdir()
        write_log(log, log_dir, num_files=min(4, rows))
        marker.touch()
    say("[2/7] preprocess: statistics, transform, shuffled packed TFRecords")
    files = [str(p) for p in sorted(log_dir.glob("*.csv"))]
    schema = FeatureSchema.load("synthetic")
    return preprocess(schema, files, out / "data", progress=block_progress)


def _config(norm: str) -> RunConfig:
    return load_run_config(None, [*_SETTINGS, f"model.norm={norm}"])


def _train(data: DataDirectory, norm: str, out: Path) -> TrainedRun:
    from jobs.steps import train_run

    return train_run(data, _config(norm), out / "runs" / norm)


def _publish(run: TrainedRun, test: Evaluation, out: Path) -> Published:
    return publish_run(run, test, out / "models", GateConfig(), _config("layer").export)


def _refused(run: TrainedRun, test: Evaluation, out: Path) -> str:
    """Asks the gate to publish the batch-norm run; returns its refusal."""
    try:
        _publish(run, test, out)
    except GateError as error:
        return str(error)
    raise ClickparityError("the gate must refuse a batch-norm run", "it published one")


def _comparison(
    metrics: dict[str, Evaluation], parities: dict[str, ParityReport]
) -> dict[str, dict[str, float | None]]:
    """One column of figures a model."""
    found: dict[str, dict[str, float | None]] = {}
    for norm in _NORMS:
        m, gaps = metrics[norm], {c.name: c.value for c in parities[norm].checks}
        bayes, ratio = _truth(m)
        found[norm] = {
            "AUC": m.auc,
            "distance to Bayes AUC": None if bayes is None or m.auc is None else bayes - m.auc,
            "log loss": m.log_loss,
            "calibration ratio": m.calibration_ratio,
            "mean prediction / mean true probability": ratio,
            "mode gap (logit)": gaps["mode"],
            "batch gap, served (logit)": gaps["batch, served"],
            "batch gap, trained (logit)": gaps["batch, trained"],
        }
    return found


def _truth(m: Evaluation) -> tuple[float | None, float | None]:
    """(the best possible AUC, mean prediction over mean true probability); a demo's log knows both."""
    return (m.truth.bayes_auc, m.truth.prediction_over_truth) if m.truth else (None, None)


def _comparison_table(comparison: dict[str, dict[str, float | None]]) -> str:
    names = list(comparison["layer"])
    rows = [[name, *(comparison[norm][name] for norm in _NORMS)] for name in names]
    return table(["held-out test rows", "layer norm", "batch norm"], rows)


# ------------------------------------------------------------------------------------- serving


def _ask(run: TrainedRun, data: DataDirectory, out: Path) -> dict[str, Any]:
    """Ten raw rows over gRPC and REST, beside what the trained model said of their encoded form."""
    import tensorflow as tf

    from pipeline.transform.parity_sample import real_rows
    from serving.client.client import PredictClient

    raw, encoded = real_rows(data, _ASKED)
    inputs = {key: tf.constant(value) for key, value in model_inputs(encoded).items()}
    logits = run.model(inputs, training=False)
    calibration = run.calibration
    trained = np.asarray(calibration.logits(logits))
    answers = {}
    with served(out / "models", _MODEL, out / "server.log") as server:
        clients = {
            "grpc": PredictClient(server.grpc_address, _MODEL, protocol="grpc"),
            "rest": PredictClient(server.rest_address, _MODEL, protocol="rest"),
        }
        for protocol, client in clients.items():
            with client:
                answers[protocol] = client.predict(raw.by_name())
    gap = max(float(np.abs(a["logit"] - trained).max()) for a in answers.values())
    return {
        "true_probability": encoded["carry"][:, 0].tolist(),
        "label": encoded["label"].tolist(),
        "trained": np.asarray(calibration.probability(logits)).tolist(),
        **{name: a["probability"].tolist() for name, a in answers.items()},
        "largest_difference": gap,
    }


def _asked_table(asked: dict[str, Any]) -> str:
    columns = ("trained", "grpc", "rest", "true_probability")
    rows = [
        [str(i + 1), *(f"{asked[c][i]:.7f}" for c in columns)] for i in range(len(asked["trained"]))
    ]
    head = ["raw row", "at training time", "served, gRPC", "served, REST", "true probability"]
    gap = asked["largest_difference"]
    return table(head, rows) + f"\nlargest difference of logits, served against trained: {gap:.2g}"
