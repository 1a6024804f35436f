"""A trained run -> RUN_DIR/export: the SavedModel that is checked, gated and published, byte for byte."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import tensorflow as tf

from models.run_steps import kept_evaluation
from models.trained_run import TrainedRun
from pipeline.machine_faults import machine_error
from pipeline.transform.parity_sample import real_rows
from serving.export.manifest import write_manifest
from serving.export.signatures import ServingModule
from serving.export.warmup_requests import ALLOWED_BATCH_SIZES, write_warmup_requests

__all__ = ["build_export", "serving_module"]


def serving_module(trained: TrainedRun) -> ServingModule:
    """Transform, trained model and calibration of a run, in memory.

    Raises:
        ConfigError: the run is not trained, or its data directory is not there.
    """
    fingerprint = trained.run.fingerprint
    return ServingModule(trained.transform, trained.model, trained.calibration, fingerprint)


def build_export(trained: TrainedRun, module: ServingModule | None = None) -> Path:
    """Writes RUN_DIR/export anew: SavedModel, schema, warm-up, then a manifest; renamed when whole.

    Args:
        trained: the run.
        module: its `serving_module`, where there is one already.

    Returns:
        The directory.

    Raises:
        MachineError: the disk is full, say; the export that was there stays, nothing else is left behind.
    """
    run = trained.run
    goal, staging, old = (run.path / n for n in ("export", ".export.staging", ".export.old"))
    shutil.rmtree(staging, ignore_errors=True)
    try:
        _write_export(trained, module or serving_module(trained), staging)
    except Exception as error:
        shutil.rmtree(staging, ignore_errors=True)
        if (fault := machine_error(error, goal)) is not None:
            raise fault from error
        raise
    # The old one leaves whole: half deleted but with its manifest it would look proved.
    shutil.rmtree(old, ignore_errors=True)
    if goal.exists():
        os.rename(goal, old)
    os.rename(staging, goal)
    shutil.rmtree(old, ignore_errors=True)
    return goal


def _write_export(trained: TrainedRun, module: ServingModule, staging: Path) -> None:
    run = trained.run
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(staging), signatures=module.signatures(), options=options)
    _set_method_names(staging)
    schema = module.transform.schema
    companions = staging / "assets.extra"
    companions.mkdir()
    # Whoever scores files with this export reads them as its training data was read.
    (companions / "schema.yaml").write_text(schema.to_yaml())
    rows, _ = real_rows(trained.data, max(ALLOWED_BATCH_SIZES))
    warmed = write_warmup_requests(staging, rows)
    tested = kept_evaluation(run, "test")
    write_manifest(
        staging,
        fingerprint=run.fingerprint,
        extra={
            "schema": schema.name,
            "schema_fingerprint": schema.fingerprint(),
            "transform_fingerprint": run.spec.fingerprint,
            "data_fingerprint": run.data_fingerprint,
            # What it was built from: whoever publishes it holds the run's files against these.
            "weights": run.weights_digest,
            "calibration": run.calibration_digest,
            "model": run.model_config.name,
            "norm": run.model_config.norm.kind,
            "tensorflow": tf.__version__,
            "inputs": {
                "numbers": list(schema.input_numbers),
                "texts": list(schema.input_texts),
                "images": list(schema.input_images),
            },
            "input_names": schema.input_names,
            "value_rules": schema.rules,
            "warmup_batch_sizes": warmed,
            "metrics": tested.to_json() if tested else {},
        },
    )


def _set_method_names(export_dir: Path) -> None:
    """`tf.saved_model.save` writes the method 'predict' everywhere; classify and regress have their own."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = export_dir / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        for name in ("classify", "regress"):
            graph.signature_def[name].method_name = f"tensorflow/serving/{name}"
    path.write_bytes(saved.SerializeToString(deterministic=True))
