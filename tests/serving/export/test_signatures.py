"""The served module in memory: input names, kinds of columns, calibration inside."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from models.calibration import Calibration, LossCorrection
from models.config.model import parse_model_config
from models.keras2 import keras
from models.zoo import build_model
from pipeline.schema import FeatureSchema
from pipeline.statistics.feature_statistics import FeatureStatistics
from pipeline.statistics.vocabulary import Vocabulary
from pipeline.transform.feature_transform import FeatureTransform
from serving.export.signatures import SIGNATURES, ServingModule

NUMERIC = {"prepared_mean": 2.0, "prepared_standard_deviation": 4.0}


def module_of(features: list[dict[str, Any]], **correction: float) -> ServingModule:
    schema = FeatureSchema.model_validate({"name": "t", "label": "y", "features": features})
    numbers = {f["name"]: NUMERIC for f in features if f["kind"] == "numeric"}
    texts = [f["name"] for f in features if f["kind"] in ("categorical", "sequence")]
    words = Vocabulary(pa.array([b"a", b"b"], pa.binary()), np.array([5, 3]), 2)
    statistics = FeatureStatistics({"numeric": numbers, "text": {}}, dict.fromkeys(texts, words))
    transform = FeatureTransform(schema, statistics)
    keras.utils.set_random_seed(3)
    config = {"name": "dcn_v2", "norm": "layer", "hidden_units": [4], "embedding_dim": 2}
    model = build_model(parse_model_config(config), transform.spec, dropout=0.0)
    return ServingModule(transform, model, Calibration(LossCorrection(**correction)), "f" * 16)


MIXED = [
    {"name": "price", "kind": "numeric"},
    {"name": "ad_id", "column": "ad id", "kind": "categorical"},
    {"name": "seen", "kind": "sequence", "separator": "|", "max_length": 3},
]


@pytest.fixture(scope="module")
def mixed() -> tuple[ServingModule, dict[str, Any]]:
    module = module_of(MIXED)
    return module, module.signatures()


def request(prices: list[float], ads: list[str], seen: list[str]) -> dict[str, tf.Tensor]:
    name = "ad_id"
    return {
        "price": tf.constant(prices, tf.float32),
        name: tf.constant(ads, tf.string),
        "seen": tf.constant(seen, tf.string),
    }


def test_all_signatures_take_any_batch(mixed: Any) -> None:
    _, signatures = mixed
    assert tuple(signatures) == SIGNATURES
    for function in signatures.values():
        for spec in function.structured_input_signature[1].values():
            assert spec.shape[0] is None


def test_a_column_with_a_blank_has_a_name_that_clients_can_write(mixed: Any) -> None:
    _, signatures = mixed
    names = set(signatures["serving_default"].structured_input_signature[1])
    assert "ad_id" in names
    assert all(n.replace("_", "").isalnum() for n in names)


def test_a_row_alone_and_in_company(mixed: Any) -> None:
    _, signatures = mixed
    serve = signatures["serving_default"]
    rows = ([1.0, math.nan, 9.0], ["a", "", "zz"], ["a|b", "", "b|b|b|a"])
    together = serve(**request(*rows))["logit"].numpy()
    for i in range(3):
        alone = serve(**request(*[column[i : i + 1] for column in rows]))["logit"].numpy()
        assert abs(alone[0] - together[i]) <= 1e-5
    assert len(set(together.tolist())) == 3


def test_an_empty_batch_is_answered(mixed: Any) -> None:
    _, signatures = mixed
    answer = signatures["serving_default"](**request([], [], []))
    assert {k: v.shape.as_list() for k, v in answer.items()} == {
        "probability": [0], "logit": [0], "model_fingerprint": [0]
    }  # fmt: skip
    examples = tf.constant([], tf.string)
    assert signatures["classify"](inputs=examples)["scores"].shape == [0, 2]
    assert signatures["regress"](inputs=examples)["outputs"].shape == [0]


def test_the_loss_correction_is_inside() -> None:
    """Trained with weight 4 on the clicks: the served logit is the raw one minus ln 4."""
    plain, weighted = module_of(MIXED), module_of(MIXED, pos_weight=4.0)
    numbers, texts = tf.constant([[1.0], [5.0]]), tf.constant([["a", "b"], ["", "a|a"]])
    difference = plain.logits(numbers, texts) - weighted.logits(numbers, texts)
    np.testing.assert_allclose(difference, math.log(4.0), rtol=1e-5)


@pytest.mark.parametrize("kept", [MIXED[:1], MIXED[1:2], MIXED[1:]])
def test_schemas_of_one_kind_of_column(kept: list[dict[str, Any]]) -> None:
    signatures = module_of(kept).signatures()
    matrices = set(signatures["compact"].structured_input_signature[1])
    assert matrices == ({"numbers"} if kept == MIXED[:1] else {"texts"})
    width = len(kept)
    if kept == MIXED[:1]:
        answer = signatures["compact"](numbers=tf.constant([[3.0], [math.nan]]))
    else:
        answer = signatures["compact"](texts=tf.constant([["a"] * width, [""] * width]))
    assert answer["probability"].shape == [2]
    empty = tf.constant([tf.train.Example().SerializeToString()])
    missing = signatures["serialized_examples"](examples=empty)["logit"].numpy()
    assert missing[0] == pytest.approx(float(answer["logit"][1]), abs=1e-5)
