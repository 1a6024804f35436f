"""Each model's logit, put together again in NumPy from its layers' outputs and weights.

The layers have golden numbers of their own (tests/models/layers); here it is how a model joins
them.
"""

import numpy as np
import pytest
import tensorflow as tf

from models.config.model import parse_model_config
from models.zoo import build_model

RNG = np.random.default_rng(11)


def build(spec, name, **options):
    raw = {"name": name, "norm": "none", "hidden_units": [5], "embedding_dim": 4, **options}
    model = build_model(parse_model_config(raw), spec)
    for weight in model.trainable_weights:
        weight.assign_add(RNG.normal(scale=0.3, size=weight.shape).astype(np.float32))
    return model


def dense(layer, x):
    bias = layer.bias.numpy() if layer.use_bias else 0.0
    return x @ layer.kernel.numpy() + bias


def mlp(layer, x):
    for each in layer.denses:
        x = np.maximum(dense(each, x), 0)
    return x


def expect(model, batch, logits):
    np.testing.assert_allclose(model(batch), logits[:, 0], rtol=1e-4, atol=1e-5)


def test_wide_deep(spec, batch):
    model = build(spec, "wide_deep")
    deep = mlp(model.mlp, model.features(batch).numpy())
    expect(model, batch, model.wide(batch).numpy() + dense(model.head, deep))


def test_deepfm(spec, batch):
    model = build(spec, "deepfm")
    e = model.features(batch).numpy()
    pairs = sum((e[:, i] * e[:, j]).sum(axis=1) for i in range(e.shape[1]) for j in range(i))
    deep = dense(model.head, mlp(model.mlp, e.reshape(6, -1)))
    expect(model, batch, model.linear(batch).numpy() + pairs[:, None] + deep)


def test_dcn(spec, batch):
    model = build(spec, "dcn", cross={"num_layers": 1})
    x = model.features(batch).numpy()
    w, b = model.cross_network.get_weights()
    crossed = x * (x @ w[0])[:, None] + b[0] + x
    expect(model, batch, dense(model.head, np.concatenate([crossed, mlp(model.mlp, x)], axis=1)))


@pytest.mark.parametrize("hidden_units", [[5], []])
def test_autoint(spec, batch, hidden_units):
    model = build(spec, "autoint", hidden_units=hidden_units, attention={"num_layers": 2})
    e = model.features(batch)
    x = model.attention[1](model.attention[0](e)).numpy()
    logits = dense(model.head, x.reshape(6, -1))
    if hidden_units:
        logits += dense(model.deep_head, mlp(model.mlp, e.numpy().reshape(6, -1)))
    expect(model, batch, logits)


def test_dlrm(spec, batch):
    model = build(spec, "dlrm", dlrm={"bottom_units": [6]})
    z = mlp(model.bottom, batch["numeric"].numpy())
    v = np.concatenate([z[:, None], model.features(batch).numpy()], axis=1)
    pairs = [(v[:, i] * v[:, j]).sum(axis=1) for i in range(v.shape[1]) for j in range(i)]
    x = np.concatenate([z, np.stack(pairs, axis=1)], axis=1)
    expect(model, batch, dense(model.head, mlp(model.mlp, x)))


def test_masknet_serial(spec, batch):
    model = build(spec, "masknet", hidden_units=[5, 3])
    v = model.features(batch).numpy().reshape(6, -1)
    h = model.blocks[1]((v, model.blocks[0]((v, v)))).numpy()
    expect(model, batch, dense(model.head, h))


def test_masknet_parallel(spec, batch):
    model = build(
        spec, "masknet", mask={"structure": "parallel", "num_blocks": 2, "block_units": 3}
    )
    v = model.features(batch).numpy().reshape(6, -1)
    h = np.concatenate([block((v, v)).numpy() for block in model.blocks], axis=1)
    assert h.shape == (6, 6)
    expect(model, batch, dense(model.head, mlp(model.mlp, h)))


def test_masknet_masks_by_raw_embeddings_what_it_has_normalized(spec, batch):
    norm = {"kind": "rms", "on_hidden": False, "on_embeddings": True, "epsilon": 1e-9}
    model = build(spec, "masknet", norm=norm)
    fields = model.features(batch).numpy()
    size = np.sqrt((fields[:, 2:] ** 2).mean(axis=2, keepdims=True) + 1e-9)
    h = np.concatenate([fields[:, :2], fields[:, 2:] / size], axis=1)
    gain = model.embedding_norm.gamma.numpy()
    h[:, 2:] *= gain
    (block,) = model.blocks
    expected = dense(model.head, block((fields.reshape(6, -1), h.reshape(6, -1))).numpy())
    expect(model, batch, expected)


@pytest.mark.parametrize("selection", [True, False])
def test_finalmlp(spec, batch, selection):
    options = {
        "second_units": [3],
        "feature_selection": selection,
        "selection_units": [4],
        "first_context": ["price", "user"],
    }
    model = build(spec, "finalmlp", hidden_units=[6], final_mlp=options)
    fields = model.features(batch).numpy()
    x = fields.reshape(6, -1)
    first = second = x
    if selection:  # the fields: age, price, ad, site, user, ...
        first = model.gates[0](x, fields[:, [1, 4]].reshape(6, -1)).numpy()
        second = model.gates[1](x).numpy()
    assert model.fusion.num_heads == 3
    streams = (mlp(model.streams[0], first), mlp(model.streams[1], second))
    streams = tuple(tf.constant(s, tf.float32) for s in streams)
    expect(model, batch, model.fusion(streams).numpy())


def test_ad_image(spec, batch):
    model = build(spec, "ad_image", image={"filters": [2], "embedding_dim": 3})
    picture = model.image_networks[0](batch["image/creative"]).numpy()
    x = np.concatenate([model.features(batch).numpy(), picture], axis=1)
    expect(model, batch, dense(model.head, mlp(model.mlp, x)))


@pytest.mark.parametrize("aggregation", ["pooling", "self_attention", "interactive"])
def test_dstn(spec, batch, aggregation):
    """`clicked` shares the ad's vocabulary: the ad is the target; both sequences are ads."""
    options = {"aggregation": aggregation, "attention_units": 4}
    model = build(spec, "dstn", dstn=options)
    table = model.sparse_variables[0].numpy()
    offsets = [0, 11, 18]
    row = [table[batch["ids"].numpy()[:, i] + offsets[i]] for i in range(3)]
    parts = [*row, batch["numeric"].numpy()]
    for name, offset, layer in zip(("clicked", "pages"), (0, 23), model.aggregations, strict=True):
        ids = batch[f"sequence/{name}"].numpy()
        parts.append(layer(tf.constant(row[0]), tf.constant(table[ids + offset]), ids != 0).numpy())
    expect(model, batch, dense(model.head, mlp(model.mlp, np.concatenate(parts, axis=1))))


def test_dstn_pools_a_sequence_that_describes_no_ad(spec, batch):
    model = build(spec, "dstn", dstn={"auxiliary": [["clicked"]], "aggregation": "pooling"})
    fields = model.embedding(batch).numpy()  # ad, site, user, clicked (pooled), pages (pooled)
    ids = batch["sequence/clicked"].numpy()
    table = model.sparse_variables[0].numpy()
    clicked = (table[ids] * (ids != 0)[:, :, None]).sum(axis=1)
    row = fields[:, [0, 1, 2, 4]].reshape(6, -1)
    x = np.concatenate([row, batch["numeric"].numpy(), clicked], axis=1)
    expect(model, batch, dense(model.head, mlp(model.mlp, x)))
