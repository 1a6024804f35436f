"""What every CTR model is: encoded tensors in, logits out, and the same from its config again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, TypeVar

import tensorflow as tf

from models.config.model import ModelConfig
from models.keras2 import keras
from models.layers.dropout import DropoutFactory, StatelessDropout, make_step_variable
from models.layers.feature_embedding import FeatureEmbedding
from models.layers.mlp import MLP, no_layer
from models.layers.normalization import NormFactory
from models.layers.tabular import EmbeddedFeatures
from models.norms.base import AxisKind, NormConfig
from pipeline.records.encoded import EncodedSpec

__all__ = ["CTRModel", "Inputs", "example_inputs"]

Inputs = dict[str, tf.Tensor]
_Features = TypeVar("_Features", bound=EmbeddedFeatures)


class CTRModel(keras.Model):
    """A click-through-rate model over encoded tensors (pipeline/records/encoded.py).

    A subclass makes its layers in `__init__` from the factories here and implements
    `compute_logits`.

    Args:
        config: the validated model config.
        spec: names and sizes of the encoded tensors.
        dropout: overrides `config.dropout`; 0 switches the noise off for parity checks.

    Attributes:
        step: int64 variable that seeds the dropout noise; `advance_step` increments it.
        prior_logit: added to every logit; the trainer sets it to the log odds of a training click,
            so that rare clicks are not first learned as a bias (Lin et al., arXiv 1708.02002, 4.1).

    Raises:
        ConfigError: the spec lacks what the model or its normalization needs.
    """

    def __init__(
        self, config: ModelConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(name=config.name)
        self.config, self.spec = config, spec
        self._made_batch_statistics = False
        self.dropout_rate = config.dropout if dropout is None else dropout
        self.step = make_step_variable(self)
        self._dropout_seeds: Iterator[int] = count(config.dropout_seed)
        self.prior_logit = self.add_weight(
            name="prior_logit",
            shape=(),
            dtype=tf.float32,
            initializer="zeros",
            trainable=False,
            experimental_autocast=False,  # logits are float32 in every precision
        )

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]; each model's formula."""
        raise NotImplementedError(f"{type(self).__name__} must implement compute_logits.")

    def call(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        """Logits, float32 [batch].

        Args:
            inputs: the tensors of pipeline/records/encoded.py by name; keys that no feature needs are
                ignored.
            training: True for batch statistics and dropout noise.
        """
        logits = tf.squeeze(self.compute_logits(inputs, training), axis=1)
        return tf.cast(logits, tf.float32) + self.prior_logit

    def advance_step(self) -> None:
        """Moves the dropout noise on by one; call it once in every train step."""
        self.step.assign_add(1)

    @property
    def sparse_variables(self) -> list[tf.Variable]:
        """The embedding tables, whose gradients are row-sparse."""
        return [
            table
            for layer in self._flatten_layers(include_self=False)
            if isinstance(layer, FeatureEmbedding)
            for table in layer.tables
        ]

    @property
    def has_batch_statistics(self) -> bool:
        """Whether a training logit depends on the other rows of the batch."""
        return self._made_batch_statistics or any(
            isinstance(layer, keras.layers.BatchNormalization)
            for layer in self._flatten_layers(include_self=False)
        )

    def norm_factory(self, axis_kind: AxisKind, norm: NormConfig | None = None) -> NormFactory:
        """Makes norms of hidden layers, or identities when the config normalizes none.

        Args:
            axis_kind: what is normalized: units, fields or an image.
            norm: by what, `config.norm` when left out.
        """
        chosen = norm or self.config.norm
        return (lambda: self._make_norm(chosen, axis_kind)) if chosen.on_hidden else no_layer

    def embedding_norm_factory(self) -> NormFactory:
        """Makes norms of embeddings [batch, fields, dim], or identities unless the config asks."""
        norm = self.config.norm
        if not norm.on_embeddings:
            return no_layer
        fields = len(self.spec.categorical) + len(self.spec.sequences)
        norm.check_positions(fields, self.config.embedding_dim, "the embeddings' fields")
        return lambda: self._make_norm(norm, "fields")

    def _make_norm(self, norm: NormConfig, axis_kind: AxisKind) -> keras.layers.Layer:
        self._made_batch_statistics |= norm.uses_batch_statistics
        return norm.make_layer(axis_kind)

    def dropout_factory(self) -> DropoutFactory:
        """Makes dropouts that share this model's step, each with a seed of its own."""
        if self.dropout_rate == 0.0:
            return no_layer
        return lambda: StatelessDropout(
            self.dropout_rate, next(self._dropout_seeds) % 2**31, step=self.step
        )

    def make_features(self, kind: type[_Features], spec: EncodedSpec | None = None) -> _Features:
        """Embedded features with this model's width, norm and table.

        Args:
            kind: flat or by field.
            spec: of the features to embed; the model's own when left out.
        """
        return kind(
            self.spec if spec is None else spec,
            self.config.embedding_dim,
            norm=self.embedding_norm_factory(),
            embedding=self.config.embedding,
            name="features",
        )

    def make_mlp(self, units: tuple[int, ...], *, name: str) -> MLP:
        """An MLP with this model's norm, dropout and activation."""
        return MLP(
            units,
            norm=self.norm_factory("units"),
            dropout=self.dropout_factory(),
            activation=self.config.activation,
            placement=self.config.norm.placement,
            name=name,
        )

    def get_config(self) -> dict[str, Any]:
        """JSON values from which `from_config` makes the same architecture."""
        return {
            "config": self.config.model_dump(mode="json"),
            "spec": self.spec.to_json(),
            "dropout": self.dropout_rate,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> CTRModel:
        """The model that `get_config` described, with its variables made and not yet restored."""
        del custom_objects
        model = cls(
            ModelConfig.model_validate(config["config"]),
            EncodedSpec.from_json(config["spec"]),
            dropout=config["dropout"],
        )
        model(example_inputs(model.spec), training=False)
        return model


def example_inputs(spec: EncodedSpec, batch_size: int = 1) -> dict[str, tf.Tensor]:
    """Rows in which everything is missing: zeros of the right shapes and dtypes."""
    inputs = {
        "numeric": tf.zeros([batch_size, len(spec.numeric)], tf.float32),
        "ids": tf.zeros([batch_size, len(spec.categorical)], tf.int32),
    }
    for sequence in spec.sequences:
        inputs[f"sequence/{sequence.name}"] = tf.zeros([batch_size, sequence.max_length], tf.int32)
    for image in spec.images:
        shape = [batch_size, image.height, image.width, image.channels]
        inputs[f"image/{image.name}"] = tf.zeros(shape, tf.uint8)
    return inputs
