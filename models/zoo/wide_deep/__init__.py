"""Wide & Deep: its options. The network is beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from models.config.model import MODELS, ModelConfig
from models.norms.base import NormConfig
from models.norms.none import NoNormConfig
from models.registry import Paper

if TYPE_CHECKING:
    from models.zoo.base import CTRModel
    from pipeline.records.encoded import EncodedSpec

__all__ = ["WideDeepConfig"]


@MODELS.add
class WideDeepConfig(ModelConfig):
    """Wide & Deep."""

    title: ClassVar[str] = "linear model plus MLP"
    paper: ClassVar[Paper | None] = Paper(2016, "1606.07792", "Cheng et al.")
    paper_norm: ClassVar[type[NormConfig]] = NoNormConfig
    name: Literal["wide_deep"] = "wide_deep"

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`WideDeep`."""
        from models.zoo.wide_deep.network import WideDeep

        return WideDeep(self, spec, dropout=dropout)
