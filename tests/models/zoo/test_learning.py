"""Every model learns what it is for, on clicks planted so that no linear model can see them."""

import numpy as np
import pytest
import tensorflow as tf

from models.config.model import MODELS, parse_model_config
from models.keras2 import keras
from models.zoo import build_model
from pipeline.records.encoded import EncodedSpec, IdFeature, ImageFeature, SequenceFeature

VOCAB, ROWS, HELD_OUT = 10, 12_000, 3_000
SPEC = EncodedSpec(
    numeric=("noise",),
    categorical=(IdFeature("ad", VOCAB), IdFeature("site", VOCAB)),
    sequences=(SequenceFeature("clicked", VOCAB, 3, "ad"),),
    images=(ImageFeature("creative", 6, 6, 1),),
)


def planted(source):
    """Clicks that follow ad x site, ad x clicked ads, or a bright bar's direction in the picture."""
    rng = np.random.default_rng(5)
    ids = rng.integers(1, VOCAB, (ROWS, 2))
    clicked = rng.integers(1, VOCAB, (ROWS, 3))
    pictures = rng.integers(0, 80, (ROWS, 6, 6, 1))
    upright = rng.random(ROWS) < 0.5
    position = rng.integers(0, 6, ROWS)
    row = np.arange(ROWS)
    pictures[row[upright], :, position[upright], 0] = 250
    pictures[row[~upright], position[~upright], :, 0] = 250
    taste = rng.choice([-2.0, 2.0], (VOCAB, VOCAB))
    logits = {
        "pair": taste[ids[:, 0], ids[:, 1]],
        "sequence": taste[ids[:, :1], clicked].sum(axis=1),
        "image": np.where(upright, 2.0, -2.0),
    }[source]
    clicks = (rng.random(ROWS) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    inputs = {
        "numeric": rng.normal(size=(ROWS, 1)).astype(np.float32),
        "ids": ids.astype(np.int32),
        "sequence/clicked": clicked.astype(np.int32),
        "image/creative": pictures.astype(np.uint8),
    }
    return inputs, clicks, logits


def auc(scores, clicks):
    rank = np.empty(len(scores))
    rank[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    positives = clicks.sum()
    return (rank[clicks == 1].sum() - positives * (positives + 1) / 2) / (
        positives * (len(clicks) - positives)
    )


def held_out_auc(raw, source):
    """AUC after 4 epochs of Adam, and the AUC of the true click probabilities."""
    keras.utils.set_random_seed(1)
    inputs, clicks, truth = planted(source)
    raw = {"hidden_units": [32, 16], "embedding_dim": 8, "norm": "layer", **raw}
    model = build_model(parse_model_config(raw), SPEC)
    optimizer = keras.optimizers.Adam(0.01)

    @tf.function
    def step(batch, labels):
        with tf.GradientTape() as tape:
            logits = model(batch, training=True)
            loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))

    data = tf.data.Dataset.from_tensor_slices((inputs, clicks)).skip(HELD_OUT)
    for batch, labels in data.repeat(4).batch(200, drop_remainder=True):
        step(batch, labels)
    held_out = {name: tf.constant(value[:HELD_OUT]) for name, value in inputs.items()}
    labels = clicks[:HELD_OUT]
    return auc(model(held_out).numpy(), labels), auc(truth[:HELD_OUT], labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS))
def test_learns_a_planted_pair(name):
    reached, best = held_out_auc({"name": name}, "pair")
    assert best > 0.85
    assert reached > 0.5 + 0.8 * (best - 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["pooling", "self_attention", "interactive"])
def test_dstn_learns_from_its_sequences(aggregation):
    raw = {"name": "dstn", "dstn": {"aggregation": aggregation, "attention_units": 16}}
    reached, best = held_out_auc(raw, "sequence")
    assert reached > 0.5 + 0.6 * (best - 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group", "instance", "layer"])
def test_ad_image_learns_from_the_picture(norm):
    image = {"filters": [8, 16], "norm": norm}
    reached, best = held_out_auc({"name": "ad_image", "image": image}, "image")
    assert reached > 0.5 + 0.8 * (best - 0.5)
