"""A run with a compressed embedding table: trained, proved in a fresh process, with no new op."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorflow.core.protobuf import saved_model_pb2

from jobs.config import load_run_config
from jobs.steps import train_run
from pipeline.transform.parity_sample import real_rows
from serving.export.build import build_export, serving_module
from serving.loader.loader_choice import find_loader
from serving.parity.export_checks import ask, export_equality
from tests.conftest import SETTINGS

OPS = Path(__file__).with_name("serving_ops.txt")


@pytest.mark.parametrize("kind", ["hash", "quotient_remainder"])
def test_a_compressed_model_exports_the_logits_that_it_has_in_memory(kind, tiny_data, tmp_path):
    settings = [
        *SETTINGS,
        f"model.embedding.compression.kind={kind}",
        "model.embedding.compression.above=50",
        "model.embedding.compression.rows=20",
    ]
    run = train_run(tiny_data, load_run_config(None, settings), tmp_path / "run", progress=False)
    whole = sum(feature.vocab_size for feature in tiny_data.spec.categorical)
    assert run.run.load_model().sparse_variables[0].shape[0] < whole / 2
    export_dir = build_export(run)
    real, encoded = real_rows(tiny_data, 64)
    loader = find_loader("off", print)
    asked = export_equality(serving_module(run), export_dir, real, encoded, loader=loader)
    (check,) = ask(export_dir, [asked])
    assert check.passed, check
    saved = saved_model_pb2.SavedModel.FromString((export_dir / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    inside = [node for function in graph.graph_def.library.function for node in function.node_def]
    functions = {function.signature.name for function in graph.graph_def.library.function}
    used = {node.op for node in [*graph.graph_def.node, *inside]} - functions
    assert used <= {line for line in OPS.read_text().splitlines() if line[:1] not in ("", "#")}
