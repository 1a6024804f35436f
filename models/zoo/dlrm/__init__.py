"""DLRM: its options. The network is beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from models.config.model import MODELS, ModelConfig, Width
from models.norms.base import NormConfig, NormPlace
from models.norms.none import NoNormConfig
from models.registry import Paper
from pipeline.strict_config import StrictConfig

if TYPE_CHECKING:
    from models.zoo.base import CTRModel
    from pipeline.records.encoded import EncodedSpec

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
    """DLRM.

    Attributes:
        dlrm: bottom network and interaction.
    """

    title: ClassVar[str] = "pairwise dot products of embeddings and a bottom MLP"
    paper: ClassVar[Paper | None] = Paper(2019, "1906.00091", "Naumov et al.")
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
