"""What a data set must have for a model to be built, refused with a remedy."""

import pytest

from models.config.model import parse_model_config
from models.zoo import build_model
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec, IdFeature, ImageFeature, SequenceFeature

IDS = (IdFeature("ad", 5), IdFeature("site", 5))


def refusal(spec, **raw):
    with pytest.raises(ConfigError) as caught:
        build_model(parse_model_config({"hidden_units": [8], "embedding_dim": 4, **raw}), spec)
    return str(caught.value)


def test_dstn_without_sequences():
    message = refusal(EncodedSpec(numeric=(), categorical=IDS), name="dstn")
    assert "needs a sequence feature" in message
    assert "model.name=dcn_v2" in message


SEQUENCES = EncodedSpec(
    numeric=("a",),
    categorical=IDS,
    sequences=(SequenceFeature("clicked", 5, 4, "ad"), SequenceFeature("shown", 5, 3, "ad")),
)


def test_dstn_with_a_misspelt_sequence_or_target():
    message = refusal(SEQUENCES, name="dstn", dstn={"auxiliary": [["clickd"]]})
    assert "'clickd'" in message
    assert "Did you mean 'clicked'" in message
    message = refusal(SEQUENCES, name="dstn", dstn={"target": ["sit"]})
    assert "Did you mean 'site'" in message


def test_dstn_with_sequences_of_different_length_for_one_ad():
    message = refusal(SEQUENCES, name="dstn", dstn={"auxiliary": [["clicked", "shown"]]})
    assert "clicked: 4, shown: 3" in message


def test_interactive_attention_without_a_target():
    spec = EncodedSpec(
        numeric=("a",), categorical=(), sequences=(SequenceFeature("clicked", 5, 4, "clicked"),)
    )
    assert "self_attention" in refusal(spec, name="dstn")
    config = parse_model_config({"name": "dstn", "dstn": {"aggregation": "self_attention"}})
    assert build_model(config, spec) is not None


def test_ad_image_without_an_image():
    assert "needs an image" in refusal(EncodedSpec(numeric=(), categorical=IDS), name="ad_image")


def test_an_image_that_pooling_leaves_with_a_single_pixel_to_normalize():
    spec = EncodedSpec(numeric=("a",), categorical=IDS, images=(ImageFeature("creative", 4, 4, 1),))
    message = refusal(spec, name="ad_image", image={"filters": [2, 2, 2], "norm": "instance"})
    assert "1 x 1 pixels" in message
    wide_enough = {"filters": [2, 2], "norm": "instance"}
    raw = {"name": "ad_image", "hidden_units": [8], "image": wide_enough}
    assert build_model(parse_model_config(raw), spec) is not None


def test_autoint_over_a_single_field_with_instance_norm():
    spec = EncodedSpec(numeric=("a",), categorical=())
    message = refusal(spec, name="autoint", hidden_units=[], norm="instance")
    assert "autoint's attention" in message


def test_finalmlp_with_a_misspelt_context():
    spec = EncodedSpec(numeric=("price",), categorical=IDS)
    message = refusal(spec, name="finalmlp", final_mlp={"first_context": ["prise"]})
    assert "model.final_mlp.first_context" in message
    assert "Did you mean 'price'" in message


@pytest.mark.parametrize("name", ["wide_deep", "deepfm", "dcn", "dcn_v2", "autoint", "masknet"])
def test_no_feature_at_all(name):
    assert "at least one" in refusal(EncodedSpec(numeric=(), categorical=()), name=name)
