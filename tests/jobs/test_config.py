"""A bare name stands for its kind, in a file and under an option that `--set` puts beside it."""

import pytest

from jobs.config import load_run_config
from pipeline.errors import ConfigError


@pytest.fixture
def file_of(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    "text, override, found",
    [
        ("model: {norm: group}", "model.norm.groups=4", lambda c: (c.model.norm.kind, c.model.norm.groups)),
        ("train: {loss: focal}", "train.loss.gamma=4", lambda c: (c.train.loss.kind, c.train.loss.gamma)),
        ("model: deepfm", "model.embedding_dim=4", lambda c: (c.model.name, c.model.embedding_dim)),
        (
            "model: {name: ad_image, image: {norm: group}}",
            "model.image.norm.groups=4",
            lambda c: (c.model.image.norm.kind, c.model.image.norm.groups),
        ),
    ],
)  # fmt: skip
def test_an_option_set_beside_a_bare_name_keeps_the_name(file_of, text, override, found):
    name, value = found(load_run_config(file_of(text), [override]))
    assert name in ("group", "focal", "deepfm")
    assert value == 4


def test_compression_by_its_kind_alone(file_of):
    text = "model: {embedding: {compression: hash}}"
    config = load_run_config(file_of(text), ["model.embedding.compression.rows=1000"])
    assert config.model.embedding.compression.kind == "hash"
    assert config.model.embedding.compression.rows == 1000


def test_calibration_by_its_kind_alone(file_of):
    assert load_run_config(file_of("calibration: isotonic")).calibration.kind == "isotonic"


@pytest.mark.parametrize("section", ["gate", "export", "drift"])
def test_a_section_without_a_kind_is_no_name(file_of, section):
    with pytest.raises(ConfigError, match=f"{section} must be a mapping of options; got 'platt'"):
        load_run_config(file_of(f"{section}: platt"))
