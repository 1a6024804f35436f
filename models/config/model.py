"""One model, chosen and validated; impossible combinations are refused before data is touched.

`parse_model_config` is the door for YAML and `--set`; inside, types rule: each model has a config
class of its own, in the `__init__` of its package in models/zoo. No TensorFlow is imported.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from models.config.embedding import DEFAULT_EMBEDDING, EmbeddingConfig
from models.norms.base import AnyNorm, AxisKind, NormConfig, NormPlace
from models.norms.layer import LayerNormConfig
from models.registry import Registry, Variant
from pipeline.errors import ConfigError
from pipeline.strict_config import Changes, StrictConfig, config_error

if TYPE_CHECKING:
    from models.zoo.base import CTRModel
    from pipeline.records.encoded import EncodedSpec
else:  # the options of the models import their types from here, and so import nothing else
    CTRModel = EncodedSpec = Any

__all__ = [
    "MODELS",
    "CTRModel",
    "Count",
    "EncodedSpec",
    "ModelConfig",
    "Width",
    "parse_model_config",
]

Width = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]

MODELS: Registry[ModelConfig] = Registry(
    "model", label="model", tag="name", package="models.zoo", holds="packages"
)


class ModelConfig(Variant):
    """A model with its normalization and sizes; reads as the config of the model that it names.

    Class attributes:
        paper_norm: the normalization that the paper itself uses.

    Attributes:
        name: the registered model.
        norm: the normalization; layer unless chosen, whatever the paper used.
        embedding_dim: width of every field's embedding.
        embedding: how the embedding table starts, and how huge vocabularies are compressed.
        hidden_units: widths of the MLP; 400 x 3 as in BARS.
        dropout: share of hidden units dropped in training.
        dropout_seed: seed of the dropout noise; with the step it fixes every mask.
        activation: of the hidden layers.
    """

    label: ClassVar[str] = "model"
    changes: ClassVar[Changes] = Changes.WEIGHTS
    family: ClassVar[Registry[ModelConfig]] = MODELS
    paper_norm: ClassVar[type[NormConfig]]
    name: str
    norm: AnyNorm = LayerNormConfig()
    embedding_dim: Width = 16
    embedding: EmbeddingConfig = DEFAULT_EMBEDDING
    hidden_units: tuple[Width, ...] = (400, 400, 400)
    dropout: float = Field(0.0, ge=0, lt=1)
    dropout_seed: int = Field(0, ge=0, lt=2**31)
    activation: Literal["relu", "gelu", "selu", "swish", "tanh"] = "relu"

    @abc.abstractmethod
    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """This model's network; imports it, and with it TensorFlow.

        Args:
            spec: names and sizes of the encoded tensors.
            dropout: overrides `dropout`; None takes it.

        Raises:
            ConfigError: the spec lacks what the model or its normalization needs.
        """

    def hidden_places(self) -> list[NormPlace]:
        """Every hidden layer that has a norm; a model with layers of its own adds them."""
        return self.places("model.hidden_units", "units", self.hidden_units)

    def places(self, where: str, axis_kind: AxisKind, widths: tuple[int, ...]) -> list[NormPlace]:
        """Places of `model.norm`, one a width.

        Args:
            where: the option that sets the widths.
            axis_kind: what their axes are.
            widths: lengths of the last axes.
        """
        return [NormPlace(where, axis_kind, width, self.norm) for width in widths]

    def norm_places(self) -> list[NormPlace]:
        """Every place that will be normalized."""
        places = [place for place in self.hidden_places() if place.norm.on_hidden]
        if self.norm.on_embeddings:
            places += self.places("model.embedding_dim", "fields", (self.embedding_dim,))
        return places

    @model_validator(mode="before")
    @classmethod
    def _empty_means_the_defaults(cls, raw: Any) -> Any:
        """A section that only this model has may be named and left empty."""
        if not isinstance(raw, Mapping):
            return raw
        sections = {
            name
            for name, field in cls.model_fields.items()
            if name not in ModelConfig.model_fields and isinstance(field.default, StrictConfig)
        }
        return {k: v for k, v in raw.items() if v is not None or k not in sections}

    @model_validator(mode="after")
    def _refuse_norms_that_cannot_be_computed(self) -> ModelConfig:
        places = self.norm_places()
        for place in places:
            together = tuple(other.width for other in places if other.norm is place.norm)
            place.norm.check_width(
                axis_kind=place.axis_kind,
                width=place.width,
                where=place.where,
                together=together,
            )
        return self


def parse_model_config(raw: Mapping[str, Any] | str | ModelConfig) -> ModelConfig:
    """The door for configs from outside: a mapping, or a model's name alone.

    Raises:
        ConfigError: one message with the rule, the value received and the remedy.
    """
    if isinstance(raw, ModelConfig):
        return raw
    if not isinstance(raw, (Mapping, str)):
        raise ConfigError(
            "model must be a mapping of options or a model's name",
            repr(raw),
            "Write model: {name: dcn_v2, norm: layer}.",
        )
    try:
        return ModelConfig.model_validate(ModelConfig.spelled_out(raw))
    except ValidationError as error:
        raise config_error(error, ModelConfig.label) from None
