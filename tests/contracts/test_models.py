"""The contract of every model under every normalization.

Tiny sizes: what is checked (shapes, parity, gradients, round trips) does not depend on them.
"""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from models.config.model import MODELS, ModelConfig, parse_model_config
from models.keras2 import keras
from models.norms.base import NORMS
from models.zoo import build_model
from models.zoo.base import CTRModel, example_inputs
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec, IdFeature, ImageFeature, SequenceFeature

SPEC = EncodedSpec(
    numeric=("age", "price"),
    categorical=(IdFeature("ad", 11), IdFeature("site", 7), IdFeature("user", 5)),
    sequences=(SequenceFeature("clicked", 11, 4, "ad"), SequenceFeature("pages", 6, 3, "pages")),
    images=(ImageFeature("creative", 8, 8, 3),),
)
SMALL_OPTIONS = {
    "autoint": {"attention": {"num_layers": 2, "head_dim": 4}},
    "ad_image": {"image": {"filters": [4, 8], "embedding_dim": 4}},
    "dlrm": {"dlrm": {"bottom_units": [8]}},
    "dstn": {"dstn": {"attention_units": 8}},
    "finalmlp": {"final_mlp": {"second_units": [8], "selection_units": [8]}},
    "masknet": {"mask": {"reduction_ratio": 1.0}},
}
NORM_OPTIONS: dict[str, dict[str, object]] = {kind: {"kind": kind} for kind in NORMS}
# instance normalization of [batch, units] would be a constant: it normalizes the embeddings only
NORM_OPTIONS["instance"] |= {"on_hidden": False, "on_embeddings": True}
# three or four numbers to a group can all but agree: then 1 / sqrt(epsilon) multiplies the rounding of
# the matrix product, which is not the same for one row as for seven
NORM_OPTIONS["group"] |= {"groups": 2, "epsilon": 1e-3}
PRODUCT = [(name, kind) for name in MODELS for kind in NORMS]
every_model_and_norm = pytest.mark.parametrize("name, kind", PRODUCT)


def fresh_model(config: ModelConfig, spec: EncodedSpec = SPEC) -> CTRModel:
    keras.utils.set_random_seed(3)
    return build_model(config, spec)


def config_of(name: str, norm: dict[str, object], **options: object) -> ModelConfig:
    small = {"hidden_units": [8, 6], "embedding_dim": 4, **SMALL_OPTIONS.get(name, {}), **options}
    return parse_model_config({"name": name, "norm": norm, **small})


@functools.cache
def model_of(name: str, kind: str):
    """A model whose weights are far from their initial zeros and ones."""
    model = fresh_model(config_of(name, NORM_OPTIONS[kind]))
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign_add(rng.normal(scale=0.1, size=weight.shape).astype(np.float32))
    return model


@functools.cache
def logits_of(name: str, kind: str) -> np.ndarray:
    """What `model_of` makes of `rows(7)` in inference."""
    return model_of(name, kind)(rows(7), training=False).numpy()


@functools.cache
def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    inputs = {
        "numeric": tf.constant(rng.normal(size=(count, 2)), tf.float32),
        "ids": tf.constant(
            np.stack([rng.integers(0, f.vocab_size, count) for f in SPEC.categorical], axis=1),
            tf.int32,
        ),
        "image/creative": tf.constant(rng.integers(0, 256, (count, 8, 8, 3)), tf.uint8),
    }
    for sequence in SPEC.sequences:
        ids = rng.integers(1, sequence.vocab_size, (count, sequence.max_length))
        length = rng.integers(0, sequence.max_length + 1, (count, 1))
        inputs[f"sequence/{sequence.name}"] = tf.constant(
            np.where(np.arange(sequence.max_length) < length, ids, 0), tf.int32
        )
    return inputs


def take(inputs, index):
    return {name: tf.gather(value, index) for name, value in inputs.items()}


def largest_difference(a, b):
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


@every_model_and_norm
def test_one_step_reaches_every_weight_and_lowers_the_loss(name, kind):
    model = fresh_model(config_of(name, NORM_OPTIONS[kind], dropout=0.1))
    inputs, labels = rows(8), tf.constant([0.0, 1, 0, 0, 1, 0, 1, 1])

    def loss_and_gradients():
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        return loss, tape.gradient(loss, model.trainable_weights)

    before, gradients = loss_and_gradients()
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, f"{weight.name} is not reached by the loss"
        dense = tf.convert_to_tensor(gradient)
        assert np.isfinite(dense).all(), weight.name
        weight.assign_sub(1e-4 * dense)
    after, _ = loss_and_gradients()  # the same dropout masks: the step was not advanced
    assert after < before


@every_model_and_norm
def test_mode_parity(name, kind):
    model, inference = model_of(name, kind), logits_of(name, kind)
    weights = model.get_weights()
    gap = largest_difference(model(rows(7), training=True), inference)
    model.set_weights(weights)  # the moving statistics have moved
    assert model.has_batch_statistics == NORMS[kind].uses_batch_statistics
    if NORMS[kind].uses_batch_statistics:
        assert gap > 0
    else:
        assert gap == 0


@every_model_and_norm
def test_batch_parity(name, kind):
    """A row scores the same alone and shuffled among others and empty rows."""
    model, inputs, together = model_of(name, kind), rows(7), logits_of(name, kind)
    alone = model(take(inputs, [3]), training=False)
    assert alone.shape == (1,)
    assert largest_difference(alone, together[[3]]) <= 1e-5
    order = np.random.default_rng(2).permutation(7)
    empty = example_inputs(SPEC, 3)
    padded = {k: tf.concat([v, empty[k]], axis=0) for k, v in take(inputs, order).items()}
    assert largest_difference(model(padded, training=False)[:7], together[order]) <= 1e-5
    if not NORMS[
        kind
    ].uses_batch_statistics:  # test_mode_parity: `together` is what training gives, too
        assert largest_difference(model(take(inputs, [3]), training=True), together[[3]]) <= 1e-5


@every_model_and_norm
def test_rows_are_told_apart_and_missing_or_unseen_values_score_finite(name, kind):
    model, empty = model_of(name, kind), example_inputs(SPEC, 2)
    hostile = dict(rows(4))
    hostile["numeric"] = tf.constant([[0.0, 0.0], [1e4, -1e4], [1e-8, 1e-8], [-50.0, 50.0]])
    hostile["ids"] = tf.constant([[0, 0, 0], [1, 1, 1], [10, 6, 4], [1, 0, 4]])  # missing, unseen
    inputs = {k: tf.concat([v, empty[k]], axis=0) for k, v in hostile.items()}
    assert np.isfinite(model(inputs, training=False)).all()
    assert np.unique(logits_of(name, kind).round(5)).size > 3


@every_model_and_norm
def test_config_round_trip(name, kind):
    model = model_of(name, kind)
    again = type(model).from_config(json.loads(json.dumps(model.get_config())))
    assert again.config == model.config
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(rows(7)), logits_of(name, kind))


def check_saves_and_loads(name, kind, tmp_path):
    model = model_of(name, kind)
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    again = build_model(model.config, SPEC)
    tf.train.Checkpoint(model=again).read(path).assert_consumed()
    np.testing.assert_array_equal(again(rows(7)), logits_of(name, kind))


SAVED_BY_DEFAULT = [(name, "batch") for name in MODELS] + [
    ("dcn_v2", kind) for kind in NORMS if not NORMS[kind].uses_batch_statistics
]


@pytest.mark.parametrize("name, kind", SAVED_BY_DEFAULT)
def test_saves_and_loads(name, kind, tmp_path):
    check_saves_and_loads(name, kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", [p for p in PRODUCT if p not in SAVED_BY_DEFAULT])
def test_saves_and_loads_the_rest(name, kind, tmp_path):
    check_saves_and_loads(name, kind, tmp_path)


PLACEMENTS = [
    {"placement": "after_activation"},
    {"on_embeddings": True},
    {"placement": "after_activation", "on_embeddings": True},
    {"on_embeddings": True, "on_hidden": False},
]


def check_placement(name, kind, placement):
    norm = NORM_OPTIONS[kind] | placement
    if kind == "instance":
        norm = NORM_OPTIONS[kind]  # it has one place
    model = fresh_model(config_of(name, norm))
    inputs = rows(7)
    logits = model(inputs, training=False)
    assert largest_difference(model(take(inputs, [3])), logits.numpy()[[3]]) <= 1e-5
    if not NORMS[kind].uses_batch_statistics:
        assert largest_difference(model(inputs, training=True), logits) == 0


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", list(NORMS))
def test_placements(kind, placement):
    check_placement("dcn_v2", kind, placement)


@pytest.mark.slow
@pytest.mark.parametrize("placement", PLACEMENTS)
@every_model_and_norm
def test_placements_of_the_rest(name, kind, placement):
    check_placement(name, kind, placement)


@pytest.mark.parametrize("name", list(MODELS))
def test_defaults_build_from_a_name_alone(name):
    model = fresh_model(parse_model_config(name))
    assert model(rows(2)).shape == (2,)
    assert type(model).__module__ == f"models.zoo.{name}.network"


@pytest.mark.parametrize("name", list(MODELS))
def test_a_traced_model_takes_any_batch_size(name):
    """Export and training trace with an unknown batch: no shape may depend on it."""
    model = model_of(name, "layer")
    inputs = rows(7)
    signature = {k: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for k, v in inputs.items()}
    score = tf.function(lambda x: model(x, training=False), input_signature=[signature])
    assert score.get_concrete_function().output_shapes.as_list() == [None]
    assert largest_difference(score(inputs), logits_of(name, "layer")) <= 1e-5
    assert score(take(inputs, [2])).shape == (1,)


FEW = {
    "only numerics": EncodedSpec(numeric=("a", "b"), categorical=()),
    "one id": EncodedSpec(numeric=(), categorical=(IdFeature("x", 4),)),
}
NEED_MORE = {
    ("dlrm", "only numerics"),
    ("dlrm", "one id"),
} | {(name, case) for name in ("dstn", "ad_image") for case in FEW}


@pytest.mark.parametrize("case", list(FEW))
@pytest.mark.parametrize("name", list(MODELS))
def test_few_features_build_or_are_refused_with_a_remedy(name, case):
    config = config_of(name, {"kind": "layer"})
    if (name, case) in NEED_MORE:
        with pytest.raises(ConfigError, match="needs") as caught:
            build_model(config, FEW[case])
        assert "schema" in caught.value.remedy
        return
    model = fresh_model(config, FEW[case])
    logits = model(example_inputs(FEW[case], 2))
    assert logits.shape == (2,)
    assert np.isfinite(logits).all()
