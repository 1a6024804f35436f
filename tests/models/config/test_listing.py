"""The listing behind `clickparity models`."""

import dataclasses
import json
import subprocess
import sys

from models.config.listing import describe_models, option_entries
from models.config.model import MODELS, ModelConfig
from models.norms.base import NORMS


def test_lists_every_model_norm_and_option_with_a_line():
    listing = describe_models()
    assert [model.name for model in listing.models] == list(MODELS)
    assert [norm.name for norm in listing.norms] == list(NORMS)
    entries = [
        *listing.model_options,
        *listing.norm_options,
        *(option for norm in listing.norms for option in norm.options),
        *(option for model in listing.models for option in model.options),
    ]
    for entry in entries:
        assert entry.line, f"{entry.path} has no line in its class's docstring"
        assert entry.values


def test_an_option_is_listed_once_and_only_where_it_can_be_set():
    listing = describe_models()
    by_name = {model.name: [o.path for o in model.options] for model in listing.models}
    assert by_name["dcn"] == ["model.cross.num_layers"]
    assert "model.cross.projection_dim" in by_name["dcn_v2"]
    assert "model.cross" not in [option.path for option in listing.model_options]
    assert by_name["wide_deep"] == []


def test_values_and_defaults_are_told():
    options = {o.path: o for o in option_entries(ModelConfig)}
    assert options["model.activation"].values == "relu | gelu | selu | swish | tanh"
    assert options["model.hidden_units"].default == [400, 400, 400]
    assert options["model.norm"].default == "layer"
    assert options["model.embedding.compression.kind"].default == "none"
    assert "model.embedding" not in options
    norm = {o.path: o for o in describe_models().norm_options}
    assert norm["model.norm.kind"].values.startswith("none | batch | layer")
    assert norm["model.norm.kind"].default == "layer"


def test_is_json_data():
    json.dumps(dataclasses.asdict(describe_models()))


def test_needs_no_tensorflow():
    code = (
        "import sys; from models.config.listing import describe_models; describe_models(); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
