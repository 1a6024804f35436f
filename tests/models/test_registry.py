"""Families of config classes: who may join, and whose option is whose."""

from typing import Any, ClassVar, Literal

import pytest
from pydantic import ValidationError

from models.config.model import MODELS, ModelConfig, parse_model_config
from models.norms.base import NORMS, NormConfig
from models.norms.rms import RmsNormConfig
from models.registry import Registry, Variant
from models.zoo.dcn_v2 import DCNv2Config
from pipeline.errors import ConfigError
from pipeline.strict_config import StrictConfig

ENGINES: Registry[Any] = Registry(
    "engine", label="car.engine", tag="kind", package="models.norms", holds="packages"
)


class Engine(Variant):
    family: ClassVar[Registry[Any]] = ENGINES
    label: ClassVar[str] = "car.engine"
    kind: str
    power: int = 1


class Tank(StrictConfig):
    label: ClassVar[str] = "car.engine.tank"
    litres: int = 50


class DieselTank(StrictConfig):
    label: ClassVar[str] = "car.engine.tank"
    litres: int = 50
    heated: bool = False


@ENGINES.add
class Petrol(Engine):
    """Burns petrol."""

    paper: ClassVar[str] = "Benz 1885, 1885.1"
    kind: Literal["petrol"] = "petrol"
    tank: Tank = Tank()
    plugs: int = 4


@ENGINES.add
class Diesel(Engine):
    """Burns diesel."""

    paper: ClassVar[str] = "Diesel 1893, 1893.1"
    kind: Literal["diesel"] = "diesel"
    tank: DieselTank = DieselTank()


@ENGINES.add
class Wind(Engine):
    """Sails.

    Slowly.
    """

    kind: Literal["wind"] = "wind"


def test_the_base_reads_as_the_member_that_is_named():
    assert Engine.model_validate("diesel") == Diesel()
    assert Engine.model_validate({"kind": "petrol", "power": 3, "plugs": 6}) == Petrol(
        power=3, plugs=6
    )
    assert Engine.model_validate(Wind()) == Wind()


def test_members_are_in_order_of_publication_those_without_a_paper_first():
    assert list(ENGINES) == ["wind", "petrol", "diesel"]


def test_the_title_is_the_first_line_of_the_docstring():
    assert [ENGINES[kind].title() for kind in ENGINES] == ["Sails", "Burns petrol", "Burns diesel"]


def test_two_members_under_one_name_are_refused_by_both_their_names():
    class Other(Engine):
        kind: Literal["diesel"] = "diesel"

    with pytest.raises(ConfigError) as caught:
        ENGINES.add(Other)
    message = str(caught.value)
    assert "two engines cannot be registered under one name" in message
    assert f"{__name__}.Diesel" in message
    assert "Other" in message
    assert "Change the kind" in message
    assert ENGINES["diesel"] is Diesel
    assert ENGINES.add(Diesel) is Diesel  # again is not twice


def test_two_models_under_one_name_are_refused():
    assert MODELS["dcn_v2"] is DCNv2Config

    class Mine(DCNv2Config):
        """Derived, and not named anew."""

    with pytest.raises(ConfigError, match=r"models\.zoo\.dcn_v2\.DCNv2Config and for .*Mine"):
        MODELS.add(Mine)


def test_a_member_without_a_name_is_refused():
    class Nameless(Engine):
        """Without a kind."""

    with pytest.raises(ConfigError, match="names itself by the default of its field 'kind'"):
        ENGINES.add(Nameless)


def test_an_option_of_others_is_refused_unless_it_says_nothing():
    assert Engine.model_validate({"kind": "wind", "plugs": 4, "tank": None}) == Wind()
    with pytest.raises(ConfigError) as caught:
        Engine.model_validate({"kind": "wind", "plugs": 6})
    assert str(caught.value) == (
        "car.engine.plugs belongs to petrol; got car.engine.kind=wind, car.engine.plugs=6. "
        "Leave it out, or set car.engine.kind=petrol."
    )
    with pytest.raises(ConfigError, match=r"car\.engine\.tank belongs to petrol and diesel"):
        Engine.model_validate({"kind": "wind", "tank": {"litres": 3}})


def test_an_option_in_a_section_that_others_share_is_refused_likewise():
    raw = {"kind": "petrol", "tank": {"litres": 40, "heated": False}}
    assert Engine.model_validate(raw) == Petrol(tank=Tank(litres=40))
    with pytest.raises(ConfigError, match=r"car\.engine\.tank\.heated belongs to diesel"):
        Engine.model_validate({"kind": "petrol", "tank": {"heated": True}})
    with pytest.raises(ConfigError, match=r"no option 'litre'.*Did you mean 'litres'"):
        Engine.model_validate({"kind": "petrol", "tank": {"litre": 3}})


def test_the_base_itself_is_no_config():
    for base in (NormConfig, ModelConfig):
        with pytest.raises(TypeError, match="abstract"):
            base()
    with pytest.raises(ValidationError, match="Field required"):
        ModelConfig.model_validate({})


def test_a_norm_keeps_the_options_of_its_kind_when_it_is_saved():
    norm = {"kind": "batch", "momentum": 0.9, "synchronized": True}
    saved = parse_model_config({"name": "dcn", "norm": norm}).model_dump(mode="json")
    assert norm.items() <= saved["norm"].items()
    assert "groups" not in saved["norm"]
    image = {"name": "ad_image", "image": {"norm": {"kind": "group", "groups": 4}}}
    assert parse_model_config(image).model_dump(mode="json")["image"]["norm"]["groups"] == 4


def test_a_config_of_an_earlier_version_is_read():
    """Then every model's section and every norm's options were in it."""
    old = {
        "name": "dcn",
        "norm": {
            "kind": "rms", "placement": "before_activation", "epsilon": 1e-05, "momentum": 0.99,
            "synchronized": False, "groups": 8, "on_hidden": True, "on_embeddings": False,
        },
        "hidden_units": [8],
        "cross": {
            "num_layers": 2, "projection_dim": None, "num_experts": 1, "structure": "parallel",
        },
        "attention": None, "dstn": None, "image": None, "dlrm": None, "mask": None,
        "final_mlp": None,
    }  # fmt: skip
    config = parse_model_config(old)
    assert config.norm == RmsNormConfig()
    assert config.model_dump(mode="json")["cross"] == {"num_layers": 2}


def test_batch_statistics_are_a_property_of_the_kind():
    assert NORMS["batch"].uses_batch_statistics
    assert not NORMS["layer"].uses_batch_statistics
