"""One model, chosen and validated; impossible combinations are refused before data is touched.

`parse_model_config` is the door for YAML and `--set`; inside, types rule. No TensorFlow is
imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from models.config.embedding import DEFAULT_EMBEDDING, EmbeddingConfig
from models.config.norm import AxisKind, NormConfig, NormKind, NormPlacement, check_norm
from models.config.registry import (
    MODELS,
    AttentionConfig,
    CrossConfig,
    DlrmConfig,
    DstnConfig,
    FinalMLPConfig,
    ImageConfig,
    MaskConfig,
    ModelInfo,
    ModelName,
    Width,
)
from pipeline.errors import ConfigError
from pipeline.strict_config import StrictConfig, config_error

__all__ = [
    "ModelConfig",
    "NormConfig",
    "NormKind",
    "NormPlacement",
    "parse_model_config",
]

_OPTIONS = ("cross", "attention", "dstn", "image", "dlrm", "mask", "final_mlp")


class ModelConfig(StrictConfig):
    """A model with its normalization and sizes.

    Attributes:
        name: the registered model.
        norm: the normalization; layer unless chosen, whatever the paper used (MODELS tells).
        embedding_dim: width of every field's embedding.
        embedding: how the embedding table starts, and how huge vocabularies are compressed.
        hidden_units: widths of the MLP; 400 x 3 as in BARS.
        dropout: share of hidden units dropped in training.
        dropout_seed: seed of the dropout noise; with the step it fixes every mask.
        activation: of the hidden layers.
        cross: dcn and dcn_v2 only; attention: autoint; dstn: dstn; image: ad_image; dlrm: dlrm;
            mask: masknet; final_mlp: finalmlp. None for every other model.
    """

    label: ClassVar[str] = "model"
    name: ModelName
    norm: NormConfig = NormConfig()
    embedding_dim: Width = 16
    embedding: EmbeddingConfig = DEFAULT_EMBEDDING
    hidden_units: tuple[Width, ...] = (400, 400, 400)
    dropout: float = Field(0.0, ge=0, lt=1)
    dropout_seed: int = Field(0, ge=0, lt=2**31)
    activation: Literal["relu", "gelu", "selu", "swish", "tanh"] = "relu"
    cross: CrossConfig | None = None
    attention: AttentionConfig | None = None
    dstn: DstnConfig | None = None
    image: ImageConfig | None = None
    dlrm: DlrmConfig | None = None
    mask: MaskConfig | None = None
    final_mlp: FinalMLPConfig | None = None

    @property
    def info(self) -> ModelInfo:
        """Title, paper and class of this model."""
        return MODELS[self.name]

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_options_of_this_model(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("name") not in list(ModelName):
            return raw  # a wrong name is told by the field itself, with the allowed ones
        info = MODELS[ModelName(raw["name"])]
        for option in _OPTIONS:
            if option != info.options and raw.get(option) is not None:
                owners = [name.value for name, other in MODELS.items() if other.options == option]
                raise ConfigError(
                    f"model.{option} belongs to {' and '.join(owners)}",
                    f"model.name={info.module}, model.{option}={raw[option]!r}",
                    f"Leave model.{option} out, or set model.name={owners[0]}.",
                )
        if info.options is None or raw.get(info.options) is not None:
            return raw
        return {**raw, info.options: {}}

    @model_validator(mode="after")
    def _refuse_what_cannot_be_built(self) -> ModelConfig:
        if self.info.options is not None:
            options = getattr(self, self.info.options)
            for field in self.info.unused_options:
                if getattr(options, field) != type(options).model_fields[field].default:
                    raise ConfigError(
                        f"{options.label}.{field} has no meaning for {self.name}",
                        repr(getattr(options, field)),
                        f"Leave it out, or set model.name={self.name}_v2.",
                    )
        if self.cross and self.cross.num_experts > 1 and self.cross.projection_dim is None:
            raise ConfigError(
                "a mixture of cross experts is low-rank: model.cross.projection_dim must be given",
                f"num_experts={self.cross.num_experts}, projection_dim=None",
                "Set model.cross.projection_dim=64, or model.cross.num_experts=1.",
            )
        if self.final_mlp:
            self._check_final_mlp(self.final_mlp)
        if self.mask and self.mask.structure == "serial" and not self.hidden_units:
            raise ConfigError(
                "serial mask blocks take their widths from model.hidden_units, never empty",
                "()",
                "Set model.hidden_units=[400, 400, 400], or model.mask.structure=parallel.",
            )
        places = self.norm_places()
        for where, axis_kind, width, norm in places:
            together = tuple(other for _, _, other, its_norm in places if its_norm is norm)
            check_norm(norm, axis_kind=axis_kind, width=width, where=where, together=together)
        return self

    def _check_final_mlp(self, options: FinalMLPConfig) -> None:
        if not self.hidden_units:
            raise ConfigError(
                "finalmlp needs its first stream: model.hidden_units must not be empty",
                "()",
                "Set model.hidden_units=[400, 400, 400].",
            )
        last_widths = math.gcd(self.hidden_units[-1], options.second_units[-1])
        if options.num_heads and last_widths % options.num_heads:
            raise ConfigError(
                "num_heads must divide the last width of both streams",
                f"num_heads={options.num_heads}, widths={self.hidden_units[-1]} and "
                f"{options.second_units[-1]}",
                f"Try num_heads={math.gcd(last_widths, options.num_heads)}.",
            )

    def norm_places(self) -> list[tuple[str, AxisKind, int, NormConfig]]:
        """Every place that will be normalized: (option that sets its width, axes, width, norm)."""
        units: list[tuple[str, tuple[int, ...]]] = [("model.hidden_units", self.hidden_units)]
        if self.dlrm:
            units.append(("model.dlrm.bottom_units", (*self.dlrm.bottom_units, self.embedding_dim)))
        if self.final_mlp:
            units.append(("model.final_mlp.second_units", self.final_mlp.second_units))
        if self.mask and self.mask.structure == "parallel":
            units.append(("model.mask.block_units", (self.mask.block_units,)))
        places: list[tuple[str, AxisKind, int, NormConfig]] = []
        if self.norm.on_hidden:
            places += [(where, "units", w, self.norm) for where, widths in units for w in widths]
            if self.attention:
                width = self.attention.num_heads * self.attention.head_dim
                places.append(("model.attention.head_dim", "fields", width, self.norm))
        if self.norm.on_embeddings:
            places.append(("model.embedding_dim", "fields", self.embedding_dim, self.norm))
        if self.image:
            norm = self.image.norm or self.norm
            if norm.on_hidden:
                places += [("model.image.filters", "image", f, norm) for f in self.image.filters]
        return places


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
        return ModelConfig.model_validate({"name": raw} if isinstance(raw, str) else raw)
    except ValidationError as error:
        raise config_error(error, ModelConfig.label) from None
