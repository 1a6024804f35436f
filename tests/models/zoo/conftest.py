"""A small encoded data set for the model tests."""

import numpy as np
import pytest
import tensorflow as tf

from pipeline.records.encoded import EncodedSpec, IdFeature, ImageFeature, SequenceFeature


@pytest.fixture(scope="session")
def spec():
    return EncodedSpec(
        numeric=("age", "price"),
        categorical=(IdFeature("ad", 11), IdFeature("site", 7), IdFeature("user", 5)),
        sequences=(
            SequenceFeature("clicked", 11, 4, "ad"),
            SequenceFeature("pages", 6, 3, "pages"),
        ),
        images=(ImageFeature("creative", 8, 8, 3),),
    )


@pytest.fixture(scope="session")
def batch(spec):
    """Six rows; the last one has nothing but missing values."""
    rng = np.random.default_rng(7)
    inputs = {
        "numeric": rng.normal(size=(6, 2)).astype(np.float32),
        "ids": np.stack([rng.integers(0, f.vocab_size, 6) for f in spec.categorical], axis=1),
        "image/creative": rng.integers(0, 256, size=(6, 8, 8, 3)),
    }
    for sequence in spec.sequences:
        inputs[f"sequence/{sequence.name}"] = rng.integers(
            0, sequence.vocab_size, (6, sequence.max_length)
        )
    for value in inputs.values():
        value[-1] = 0
    return {
        name: tf.constant(
            value,
            tf.float32 if name == "numeric" else tf.uint8 if "image" in name else tf.int32,
        )
        for name, value in inputs.items()
    }
