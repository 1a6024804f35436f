"""Features as flat vectors, fields and linear terms, against NumPy on literal rows."""

import numpy as np
import pytest
import tensorflow as tf

from models.layers.tabular import FieldFeatures, FlatFeatures, LinearTerm
from models.norms.rms import RmsNormConfig
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec, IdFeature

SPEC = EncodedSpec(numeric=("a", "b"), categorical=(IdFeature("x", 3), IdFeature("y", 4)))
INPUTS = {
    "numeric": tf.constant([[2.0, -1.0], [0.5, 3.0]]),
    "ids": tf.constant([[1, 2], [0, 3]]),
    "label": tf.constant([1.0, 0.0]),
}
ROWS = np.array([[1, 3 + 2], [0, 3 + 3]])  # of the fused table: y's ids follow x's three
RMS = RmsNormConfig(epsilon=1e-12)


def tabled(layer, embedding, values):
    layer(INPUTS)
    embedding.tables[0].assign(values)
    return layer


TABLE = np.arange(14, dtype=np.float32).reshape(7, 2) + 1


def test_flat():
    layer = FlatFeatures(SPEC, 2)
    tabled(layer, layer.embedding, TABLE)
    expected = np.concatenate([INPUTS["numeric"], TABLE[ROWS].reshape(2, 4)], axis=1)
    np.testing.assert_array_equal(layer(INPUTS), expected)


def test_fields():
    layer = FieldFeatures(SPEC, 2)
    tabled(layer, layer.embedding, TABLE)
    layer.numeric_vectors.assign([[1.0, 2.0], [10.0, 20.0]])
    numeric = [[[2, 4], [-10, -20]], [[0.5, 1], [30, 60]]]
    np.testing.assert_array_equal(layer(INPUTS), np.concatenate([numeric, TABLE[ROWS]], axis=1))


@pytest.mark.parametrize("features", [FlatFeatures, FieldFeatures])
def test_the_norm_touches_embeddings_and_leaves_numerics_alone(features):
    layer = features(SPEC, 2, norm=lambda: RMS.make_layer("fields"))
    plain = features(SPEC, 2)
    for each in (layer, plain):
        tabled(each, each.embedding, TABLE)
    if features is FieldFeatures:
        plain.numeric_vectors.assign(layer.numeric_vectors)
    embedded = TABLE[ROWS]
    normed = embedded / np.sqrt((embedded**2).mean(axis=-1, keepdims=True))
    numerics = 2 if features is FieldFeatures else 1
    got = layer(INPUTS).numpy().reshape(2, -1, 2)
    np.testing.assert_array_equal(
        got[:, :numerics], plain(INPUTS).numpy().reshape(2, -1, 2)[:, :numerics]
    )
    np.testing.assert_allclose(got[:, numerics:], normed, rtol=1e-6)


def test_linear():
    layer = LinearTerm(SPEC)
    tabled(layer, layer.weights_of_ids, np.arange(7, dtype=np.float32)[:, None])
    layer.weights_of_numerics.set_weights([np.array([[10.0], [100.0]])])
    layer.bias.assign([0.25])
    # 1 + 5 + 20 - 100 + 0.25 and 0 + 6 + 5 + 300 + 0.25
    np.testing.assert_allclose(layer(INPUTS), [[-73.75], [311.25]])


@pytest.mark.parametrize("numeric, ids", [(("a", "b"), ()), ((), SPEC.categorical)])
@pytest.mark.parametrize("features", [FlatFeatures, FieldFeatures, None])
def test_works_without_numerics_or_without_ids(features, numeric, ids):
    spec = EncodedSpec(numeric=numeric, categorical=ids)
    layer = LinearTerm(spec) if features is None else features(spec, 2)
    inputs = {
        "numeric": INPUTS["numeric"][:, : len(numeric)],
        "ids": INPUTS["ids"][:, : len(ids)],
    }
    assert np.isfinite(layer(inputs)).all()
    assert layer(inputs).shape[0] == 2


def test_no_feature_at_all_is_refused():
    for features in (FlatFeatures, FieldFeatures):
        with pytest.raises(ConfigError, match="at least one"):
            features(EncodedSpec(numeric=(), categorical=()), 2)
