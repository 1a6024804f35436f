"""A trained run -> RUN_DIR/export: the SavedModel that is checked, gated and published, byte for byte."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import tensorflow as tf

from models.calibration import Calibration
from models.run_directory import RunDirectory
from pipeline.errors import ConfigError
from pipeline.records.data_directory import DataDirectory
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.transform.feature_transform import FeatureTransform
from pipeline.transform.parity_sample import real_rows
from serving.export.manifest import write_manifest
from serving.export.signatures import ServingModule
from serving.export.warmup_requests import ALLOWED_BATCH_SIZES, write_warmup_requests

__all__ = ["build_export", "data_of", "load_calibration", "serving_module"]


def data_of(run: RunDirectory) -> DataDirectory:
    """The data directory that a run was trained on.

    Raises:
        ConfigError: it is gone, or holds other data now; the message names both fingerprints.
    """
    data = DataDirectory.open(run.data_path)
    if data.fingerprint != run.data_fingerprint:
        raise ConfigError(
            "a run is exported with the data it was trained on",
            f"{data.path} is {data.fingerprint}, the run was trained on {run.data_fingerprint}",
            "Restore that data directory, or train again.",
        )
    return data


def load_calibration(run: RunDirectory) -> Calibration:
    """The calibration fitted for a run.

    Raises:
        ConfigError: the run has none yet.
    """
    return Calibration.from_config(run.read_json("calibration.json")["calibration"])


def serving_module(run: RunDirectory) -> ServingModule:
    """Transform, trained model and calibration of a run, in memory.

    Raises:
        ConfigError: the run is not trained, or its data directory is not there.
    """
    data = data_of(run)
    transform = FeatureTransform(data.schema, FeatureStatistics.load(data.path / "statistics"))
    if transform.spec.fingerprint != run.spec.fingerprint:
        raise ConfigError(
            "the transform must be the one that the run was trained with",
            f"transform {transform.spec.fingerprint}, run {run.spec.fingerprint}",
            "Preprocess and train again with this version of clickparity.",
        )
    model = run.load_model(dropout=0.0)
    return ServingModule(transform, model, load_calibration(run), run.fingerprint)


def build_export(run: RunDirectory) -> Path:
    """Writes RUN_DIR/export anew: SavedModel, schema, warm-up, then a manifest; renamed when whole.

    Returns:
        The directory.
    """
    goal, staging, old = (run.path / n for n in ("export", ".export.staging", ".export.old"))
    shutil.rmtree(staging, ignore_errors=True)
    module = serving_module(run)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(staging), signatures=module.signatures(), options=options)
    _set_method_names(staging)
    schema = module.transform.schema
    companions = staging / "assets.extra"
    companions.mkdir()
    # Whoever scores files with this export reads them as its training data was read.
    (companions / "schema.yaml").write_text(schema.to_yaml())
    rows, _ = real_rows(data_of(run), max(ALLOWED_BATCH_SIZES))
    warmed = write_warmup_requests(staging, rows)
    metrics = run.read_json("metrics.json") if run.has("metrics.json") else {}
    write_manifest(
        staging,
        fingerprint=run.fingerprint,
        extra={
            "schema": schema.name,
            "schema_fingerprint": schema.fingerprint(),
            "transform_fingerprint": run.spec.fingerprint,
            "data_fingerprint": run.data_fingerprint,
            "model": run.model_config.name,
            "norm": run.model_config.norm.kind,
            "tensorflow": tf.__version__,
            "inputs": {
                "numbers": list(schema.input_numbers),
                "texts": list(schema.input_texts),
                "images": list(schema.input_images),
            },
            "warmup_batch_sizes": warmed,
            "metrics": metrics.get("test", {}),
        },
    )
    # The old one leaves whole: half deleted but with its manifest it would look proved.
    shutil.rmtree(old, ignore_errors=True)
    if goal.exists():
        os.rename(goal, old)
    os.rename(staging, goal)
    shutil.rmtree(old, ignore_errors=True)
    return goal


def _set_method_names(export_dir: Path) -> None:
    """`tf.saved_model.save` writes the method 'predict' everywhere; classify and regress have their own."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = export_dir / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        for name in ("classify", "regress"):
            graph.signature_def[name].method_name = f"tensorflow/serving/{name}"
    path.write_bytes(saved.SerializeToString(deterministic=True))
