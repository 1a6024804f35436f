"""DLRM: its options. The network is beside them."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.config.model import MODELS, CTRModel, EncodedSpec, ModelConfig, Width
from models.norms.base import NormConfig, NormPlace
from models.norms.none import NoNormConfig
from pipeline.strict_config import StrictConfig

__all__ = ["DLRMConfig", "DLRMOptions"]


class DLRMOptions(StrictConfig):
    """Bottom network and interaction of dlrm.

    Attributes:
        bottom_units: hidden widths between the numeric features and their vector of embedding_dim.
        self_interaction: also take each vector's product with itself.
    """

    label: ClassVar[str] = "model.dlrm"
    bottom_units: tuple[Width, ...] = (512, 256, 64)
    self_interaction: bool = False


@MODELS.add
class DLRMConfig(ModelConfig):
    """Pairwise dot products of embeddings and a bottom MLP.

    Attributes:
        dlrm: bottom network and interaction.
    """

    paper: ClassVar[str] = "Naumov et al. 2019, 1906.00091"
    paper_norm: ClassVar[type[NormConfig]] = NoNormConfig
    name: Literal["dlrm"] = "dlrm"
    dlrm: DLRMOptions = DLRMOptions()

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`DLRM`."""
        from models.zoo.dlrm.network import DLRM

        return DLRM(self, spec, dropout=dropout)

    @property
    def bottom_widths(self) -> tuple[int, ...]:
        """Widths of all layers of the bottom network."""
        return (*self.dlrm.bottom_units, self.embedding_dim)

    def hidden_places(self) -> list[NormPlace]:
        """Both MLPs."""
        bottom = self.places("model.dlrm.bottom_units", "units", self.bottom_widths)
        return super().hidden_places() + bottom
