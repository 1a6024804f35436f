"""Wide & Deep: its options. The network is beside them."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.config.model import MODELS, CTRModel, EncodedSpec, ModelConfig
from models.norms.base import NormConfig
from models.norms.none import NoNormConfig

__all__ = ["WideDeepConfig"]


@MODELS.add
class WideDeepConfig(ModelConfig):
    """Linear model plus MLP."""

    paper: ClassVar[str] = "Cheng et al. 2016, 1606.07792"
    paper_norm: ClassVar[type[NormConfig]] = NoNormConfig
    name: Literal["wide_deep"] = "wide_deep"

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`WideDeep`."""
        from models.zoo.wide_deep.network import WideDeep

        return WideDeep(self, spec, dropout=dropout)
