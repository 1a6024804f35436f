"""The model zoo, a package a model: its options in `__init__`, its network in `network`.

A new model is such a package; it is found by being here. Importing the zoo, or the options, is cheap:
TensorFlow is imported when a model is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.config.model import ModelConfig
    from models.zoo.base import CTRModel
    from pipeline.records.encoded import EncodedSpec

__all__ = ["build_model"]


def build_model(
    config: ModelConfig, spec: EncodedSpec, *, dropout: float | None = None
) -> CTRModel:
    """A model with all its variables made. Call it inside the distribution strategy's scope.

    Args:
        config: the validated model config.
        spec: names and sizes of the encoded tensors.
        dropout: overrides `config.dropout`; 0 switches the noise off for parity checks.

    Returns:
        The model; `model(inputs, training=...)` gives logits float32 [batch].

    Raises:
        ConfigError: the spec lacks what the model or its normalization needs.
    """
    from models.zoo.base import example_inputs

    model = config.build(spec, dropout=dropout)
    model(example_inputs(spec), training=False)
    return model
