"""Every model, normalization, loss and calibrator through `clickparity run`, chosen with --set alone.

One log serves all: numbers, ids, a sequence and pictures, so every model finds what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from models.config.model import MODELS
from models.config.train import LossConfig
from models.norms.base import NORMS
from models.run_directory import RunDirectory
from pipeline.synthetic.creatives import CREATIVE_SCHEMA, CreativeLog
from serving.export.manifest import verify_manifest
from tests.conftest import without_replica_check
from tests.jobs.conftest import Outcome

Cli = Callable[..., Outcome]
pytestmark = pytest.mark.timeout(1200)  # on a busy machine: about 20 s a run otherwise

SMALL = (
    "model.hidden_units=[16]", "model.embedding_dim=4", "train.global_batch_size=128",
    "preprocess.rows_per_record=512", "preprocess.parity_sample_rows=64",
    # Every choice runs; after a few steps not each of them is better than a constant.
    "gate.require_better_than_constant=false",
)  # fmt: skip
OF_MODEL = {
    "autoint": ("model.attention.num_layers=1", "model.attention.head_dim=4"),
    "ad_image": ("model.image.filters=[4, 8]", "model.image.embedding_dim=4"),
    "dlrm": ("model.dlrm.bottom_units=[8]",),
    "finalmlp": (
        "model.final_mlp.second_units=[16]",
        "model.final_mlp.selection_units=[8]",
    ),
}
ACCEPTED = "export.accept_batch_gap=100"
OF_NORM = {
    "none": ("model.norm=none",),
    "batch": ("model.norm=batch", ACCEPTED),
    "batch, synchronised": ("model.norm.kind=batch", "model.norm.synchronized=true", ACCEPTED),
    "layer": ("model.norm=layer",),
    # [batch, units] has nothing for instance normalization: it takes the embeddings
    "instance": (
        "model.norm.kind=instance", "model.norm.on_hidden=false", "model.norm.on_embeddings=true",
    ),
    "group": ("model.norm.kind=group", "model.norm.groups=2"),
    "rms": ("model.norm=rms",),
    "variance_only": ("model.norm=variance_only",),
}  # fmt: skip
OF_LOSS = {
    "bce": ("train.loss=bce",),
    "pos_weight": ("train.loss.kind=pos_weight", "train.loss.pos_weight=4"),
    "balanced": ("train.loss=pos_weight",),
    "focal": ("train.loss=focal", "train.loss.gamma=1.5", "train.loss.alpha=0.5"),
}
OF_THE_REST = {
    "after activation": ("model.norm.placement=after_activation",),
    "on embeddings": ("model.norm.on_embeddings=true",),
    "low-rank dcn_v2": ("model.cross.projection_dim=4",),
    "mixture of experts": ("model.cross.projection_dim=4", "model.cross.num_experts=2"),
    "dstn, pooling": ("model.name=dstn", "model.dstn.aggregation=pooling"),
    "dstn, self-attention": ("model.name=dstn", "model.dstn.aggregation=self_attention"),
    "ad_image, instance in the CNN": (
        "model.name=ad_image", "model.image.filters=[4]", "model.norm=layer", "model.image.norm=instance",
    ),
    "down-sampling": ("preprocess.negative_keep_rate=0.5",),
    "isotonic": ("calibration.kind=isotonic",),
    "no calibrator": ("calibration.kind=none",),
}  # fmt: skip
ALL = (
    [(m, (f"model.name={m}", *OF_MODEL.get(m, ()))) for m in MODELS]
    + [(f"norm {name}", settings) for name, settings in OF_NORM.items()]
    + [(f"loss {name}", settings) for name, settings in OF_LOSS.items()]
    + list(OF_THE_REST.items())
)
# these two meet a sequence, a picture, both gates on the norm, and both shifted losses
REPRESENTATIVE = [
    ("dstn, batch, balanced", ("model.name=dstn", *OF_NORM["batch"], *OF_LOSS["balanced"])),
    (
        "ad_image, group, focal",
        (
            "model.name=ad_image",
            *OF_MODEL["ad_image"],
            *OF_NORM["group"],
            *OF_LOSS["focal"],
        ),
    ),
]


def test_no_normalization_or_loss_is_left_out() -> None:
    assert {name.split(",")[0] for name in OF_NORM} == set(NORMS)
    kinds = {
        arg
        for kind in get_args(LossConfig)
        for arg in get_args(kind.model_fields["kind"].annotation)
    }
    assert {"pos_weight" if name == "balanced" else name for name in OF_LOSS} == kinds


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a log, its schema): numbers, ids, a sequence of sites and pictures; 40 % clicks."""
    path = tmp_path_factory.mktemp("everything")
    pictures = np.random.default_rng(0).integers(0, 256, (40, 28, 28)).astype(np.uint8)
    log = CreativeLog(pictures, np.repeat(np.arange(2), 20), num_rows=3_000, ctr=0.4).table()
    seen = np.random.default_rng(1).integers(0, 200, (3_000, 3))
    texts = [f"site{a}|site{b}|site{c}"[: 6 * (a % 3)] for a, b, c in seen]
    pq.write_table(log.append_column("seen", pa.array(texts)), path / "log.parquet")
    raw = yaml.safe_load(CREATIVE_SCHEMA)
    sequence = {"kind": "sequence", "separator": "|", "max_length": 3, "vocabulary_of": "site"}
    raw["features"].append({"name": "seen", **sequence})
    (path / "everything.yaml").write_text(yaml.safe_dump(raw))
    return path / "log.parquet", path / "everything.yaml"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One workdir for all runs: the log is preprocessed once."""
    return tmp_path_factory.mktemp("work")


def check_run(cli: Cli, everything: tuple[Path, Path], workdir: Path, settings: tuple) -> None:
    """Runs to a published model whose parity bars hold."""
    log, schema = everything
    argv = ["run", "--input", log, "--workdir", workdir, "--json"]
    # a default that is chosen by name is the same run as before, with which nothing would be done
    seed = sum(1 for _ in workdir.glob("runs/*"))
    with without_replica_check():
        outcome = cli(*argv, "--set", f"schema={schema}", f"train.seed={seed}", *SMALL, *settings)
    result = outcome.result
    assert result["nothing_to_do"] is False
    assert result["published"]["outcome"] == "published"
    version = Path(result["published"]["path"])
    run = RunDirectory.open(result["run"])
    assert verify_manifest(version).fingerprint == run.fingerprint
    for (
        setting
    ) in settings:  # what was set is what was run, nothing was quietly left at its default
        key, _, text = setting.partition("=")
        section, *path = key.split(".")
        if section == "preprocess":
            continue
        value = run.config[section]
        for name in path:
            value = value[name]
        value = value["kind"] if isinstance(value, dict) else value
        assert value == yaml.safe_load(text), setting
    metrics = result["metrics"]
    assert 0 < metrics["log_loss"] < 1
    assert metrics["count"] > 300
    has_batch_statistics = ACCEPTED in settings
    for check in run.read_json("parity.json")["checks"]:
        if check["bar"] is not None:
            assert check["value"] <= check["bar"], check["name"]
    assert (result["parity"]["mode"] > 0) == has_batch_statistics


@pytest.mark.parametrize(
    "settings", [s for _, s in REPRESENTATIVE], ids=[n for n, _ in REPRESENTATIVE]
)
def test_a_few_choices_run_to_a_published_model(
    cli: Cli, everything: tuple[Path, Path], workdir: Path, settings: tuple
) -> None:
    check_run(cli, everything, workdir, settings)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [s for _, s in ALL], ids=[n for n, _ in ALL])
def test_every_choice_runs_to_a_published_model(
    cli: Cli, everything: tuple[Path, Path], workdir: Path, settings: tuple
) -> None:
    check_run(cli, everything, workdir, settings)


def test_batch_statistics_are_not_published_unless_their_gap_is_accepted(
    cli: Cli, everything: tuple[Path, Path], workdir: Path
) -> None:
    log, schema = everything
    with without_replica_check():
        outcome = cli(
            "run", "--input", log, "--workdir", workdir,
            "--set", f"schema={schema}", *SMALL, "model.norm=batch", "train.seed=1",
        )  # fmt: skip
    outcome.refused(3, "accept")
