"""The door for model configs: what is accepted, what is refused, and in which words."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.config.model import MODELS, ModelConfig, parse_model_config
from models.norms.group import GroupNormConfig
from models.norms.instance import InstanceNormConfig
from models.norms.rms import RmsNormConfig
from models.zoo.ad_image import AdImageConfig
from models.zoo.autoint import AutoIntConfig
from pipeline.errors import ConfigError


def refusal(raw: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_model_config(raw)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return caught.value


def test_a_string_stands_for_the_kind_of_norm():
    config = ModelConfig.model_validate({"name": "dcn_v2", "norm": "rms", "hidden_units": [8]})
    assert config.norm == RmsNormConfig()
    assert config.hidden_units == (8,)


def test_a_name_alone_is_a_config_with_the_options_of_its_model():
    config = parse_model_config("autoint")
    assert isinstance(config, AutoIntConfig)
    assert config.attention.num_heads == 2
    assert not hasattr(config, "cross")
    assert not hasattr(config, "mask")


@pytest.mark.parametrize("name", list(MODELS))
def test_json_round_trip(name):
    config = parse_model_config({"name": name, "dropout": 0.1})
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
    assert ModelConfig.model_validate(config.model_dump(exclude_none=True)) == config


def test_a_section_of_the_model_may_be_left_empty():
    config = parse_model_config({"name": "autoint", "attention": None})
    assert config == parse_model_config("autoint")
    assert "model.norm" in str(refusal({"name": "autoint", "norm": None}))  # which norm is it?


def test_configs_are_frozen():
    with pytest.raises(ValidationError):
        parse_model_config("dcn").dropout = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    "raw, parts",
    [
        ({"name": "dcnv2"}, ["model.name", "'dcnv2'", "Did you mean 'dcn_v2'", "masknet"]),
        ({"name": ["dcn"]}, ["model.name", "['dcn']", "Allowed: wide_deep"]),
        ({"name": "dcn_v2", "nrom": 1}, ["no option 'nrom'", "model.nrom=1", "mean 'norm'"]),
        (
            {"name": "dcn_v2", "norm": {"kind": "layer", "epsilom": 1}},
            ["model.norm.epsilom", "Did you mean 'epsilon'"],
        ),
        ({"name": "dcn_v2", "norm": "lyer"}, ["model.norm.kind", "'lyer'", "mean 'layer'", "rms"]),
        (
            {"name": "dcn_v2", "norm": {"kind": "layer", "synchronized": True}},
            ["synchronized belongs to batch norm", "kind=layer", "model.norm.kind=batch"],
        ),
        (
            {"name": "dcn_v2", "norm": {"kind": "layer", "momentum": 0.9}},
            ["momentum belongs to batch norm", "momentum=0.9", "model.norm.kind=batch"],
        ),
        (
            {"name": "dcn_v2", "norm": {"kind": "batch", "groups": 4}},
            ["groups belongs to group norm", "groups=4", "model.norm.kind=group"],
        ),
        (
            {"name": "dcn_v2", "norm": {"kind": "rms", "on_hidden": False}},
            ["a normalization needs a place", "on_embeddings=False", "model.norm=none"],
        ),
        (
            {
                "name": "dcn_v2",
                "norm": {
                    "kind": "rms",
                    "on_hidden": False,
                    "on_embeddings": True,
                    "placement": "after_activation",
                },
            },
            ["about hidden layers", "placement=after_activation", "model.norm.on_hidden=true"],
        ),
        ({"name": "dcn_v2", "dropout": 1.5}, ["model.dropout", "1.5", "less than 1"]),
        ({"name": "dcn_v2", "hidden_units": [4, 0]}, ["model.hidden_units.1", "0"]),
        ({"norm": "layer"}, ["model.name must be given"]),
        ({"name": "deepfm", "cross": {"num_layers": 2}}, ["belongs to dcn and dcn_v2", "deepfm"]),
        ({"name": "dcn", "cross": {"projection_dim": 4}}, ["projection_dim", "dcn_v2"]),
        ({"name": "dcn_v2", "cross": {"num_experts": 4}}, ["projection_dim must be given"]),
        ({"name": "dcn_v2", "cross": {"structure": "serial"}}, ["parallel, stacked"]),
        ({"name": "finalmlp", "hidden_units": []}, ["must not be empty"]),
        ({"name": "finalmlp", "final_mlp": {"num_heads": 7}}, ["num_heads=7", "Try num_heads=1"]),
        (
            {"name": "masknet", "hidden_units": [], "mask": {"structure": "serial"}},
            ["model.hidden_units"],
        ),
        (3, ["mapping of options", "3"]),
    ],
)
def test_wrong_configs_name_the_field_the_value_and_the_remedy(raw, parts):
    message = str(refusal(raw))
    assert all(part in message for part in parts), message


def test_groups_must_divide():
    error = refusal(
        {"name": "dcn_v2", "norm": {"kind": "group", "groups": 32}, "hidden_units": [100]}
    )
    assert str(error).startswith(
        "groups must divide units; got groups=32, units=100. Try groups=25."
    )


def test_the_suggested_number_of_groups_suits_all_widths():
    error = refusal(
        {"name": "dcn_v2", "norm": {"kind": "group", "groups": 32}, "hidden_units": [100, 64, 32]}
    )
    assert "units=100. Try groups=4." in str(error)


def test_a_group_of_one_unit_is_refused():
    error = refusal({"name": "dcn_v2", "norm": {"kind": "group", "groups": 8}, "hidden_units": [8]})
    assert "leave several units to a group" in str(error)
    assert "Try groups=4" in str(error)


def test_instance_on_units_is_refused_and_its_remedy_is_accepted():
    error = refusal({"name": "dcn_v2", "norm": "instance"})
    assert "[batch, units]" in str(error)
    assert "model.norm.on_hidden=false" in str(error)
    remedy = {"kind": "instance", "on_embeddings": True, "on_hidden": False}
    assert parse_model_config({"name": "dcn_v2", "norm": remedy}).norm.on_embeddings


@pytest.mark.parametrize("kind", ["layer", "rms", "variance_only"])
def test_an_axis_of_length_one_is_refused(kind):
    assert "length 1" in str(refusal({"name": "wide_deep", "norm": kind, "hidden_units": [8, 1]}))
    error = refusal(
        {"name": "wide_deep", "norm": {"kind": kind, "on_embeddings": True}, "embedding_dim": 1}
    )
    assert "model.embedding_dim" in str(error)


def test_every_width_of_a_model_is_checked():
    group = {"kind": "group", "groups": 8}
    for raw in (
        {"name": "dlrm", "norm": group, "dlrm": {"bottom_units": [20]}},
        {"name": "finalmlp", "norm": group, "final_mlp": {"second_units": [20]}},
        {"name": "masknet", "norm": group, "mask": {"structure": "parallel", "block_units": 20}},
        {"name": "autoint", "norm": group, "attention": {"head_dim": 10, "num_heads": 1}},
        {"name": "ad_image", "norm": group, "image": {"filters": [20]}},
        {"name": "deepfm", "norm": {**group, "on_embeddings": True}, "embedding_dim": 20},
    ):
        assert "groups must divide" in str(refusal(raw)), raw


def test_the_image_network_may_have_a_norm_of_its_own():
    raw = {"name": "ad_image", "norm": "layer", "image": {"norm": "instance"}}
    config = parse_model_config(raw)
    assert isinstance(config, AdImageConfig)
    assert config.image.norm == InstanceNormConfig()


@given(groups=st.integers(1, 64), width=st.integers(2, 200))
def test_the_suggested_number_of_groups_is_always_accepted(groups, width):
    norm = GroupNormConfig(groups=groups)
    if width % groups == 0 and width > groups:
        norm.check_width(axis_kind="units", width=width, where="w")
        return
    with pytest.raises(ConfigError) as caught:
        norm.check_width(axis_kind="units", width=width, where="w")
    suggested = int(caught.value.remedy.split("groups=")[1].split(".")[0])
    better = norm.model_copy(update={"groups": suggested})
    better.check_width(axis_kind="units", width=width, where="w")


def test_a_single_unit_has_no_groups():
    error = refusal({"name": "dcn", "norm": {"kind": "group", "groups": 1}, "hidden_units": [1]})
    assert "Use norm=none" in str(error)


def test_every_model_is_registered_with_its_paper():
    assert {
        "wide_deep", "deepfm", "dcn", "dcn_v2", "autoint", "dstn", "ad_image", "dlrm", "masknet",
        "finalmlp",
    } <= set(MODELS)  # fmt: skip
    assert all(model.title() and model.paper for model in MODELS.values())


def test_reading_a_config_does_not_import_tensorflow():
    code = (
        "import sys; from models.config.model import parse_model_config; import models.zoo; "
        "parse_model_config('dcn_v2'); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
