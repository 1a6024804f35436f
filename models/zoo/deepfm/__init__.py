"""DeepFM: its options. The network is beside them."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.config.model import MODELS, CTRModel, EncodedSpec, ModelConfig
from models.norms.base import NormConfig
from models.norms.none import NoNormConfig

__all__ = ["DeepFMConfig"]


@MODELS.add
class DeepFMConfig(ModelConfig):
    """Factorization machine plus MLP."""

    paper: ClassVar[str] = "Guo et al. 2017, 1703.04247"
    paper_norm: ClassVar[type[NormConfig]] = NoNormConfig
    name: Literal["deepfm"] = "deepfm"

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`DeepFM`."""
        from models.zoo.deepfm.network import DeepFM

        return DeepFM(self, spec, dropout=dropout)
