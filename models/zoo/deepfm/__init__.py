"""DeepFM: its options. The network is beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from models.config.model import MODELS, ModelConfig
from models.norms.base import NormConfig
from models.norms.none import NoNormConfig
from models.registry import Paper

if TYPE_CHECKING:
    from models.zoo.base import CTRModel
    from pipeline.records.encoded import EncodedSpec

__all__ = ["DeepFMConfig"]


@MODELS.add
class DeepFMConfig(ModelConfig):
    """DeepFM."""

    title: ClassVar[str] = "factorization machine plus MLP"
    paper: ClassVar[Paper | None] = Paper(2017, "1703.04247", "Guo et al.")
    paper_norm: ClassVar[type[NormConfig]] = NoNormConfig
    name: Literal["deepfm"] = "deepfm"

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`DeepFM`."""
        from models.zoo.deepfm.network import DeepFM

        return DeepFM(self, spec, dropout=dropout)
