"""DCN: its options. The network is beside them."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.config.model import MODELS, Count, CTRModel, EncodedSpec, ModelConfig
from models.norms.base import NormConfig
from models.norms.batch import BatchNormConfig
from pipeline.strict_config import StrictConfig

__all__ = ["CrossOptions", "DCNConfig"]


class CrossOptions(StrictConfig):
    """Cross layers of dcn.

    Attributes:
        num_layers: number of cross layers; the polynomial degree minus one.
    """

    label: ClassVar[str] = "model.cross"
    num_layers: Count = 3


@MODELS.add
class DCNConfig(ModelConfig):
    """Vector cross network beside an MLP.

    Attributes:
        cross: the cross network.
    """

    paper: ClassVar[str] = "Wang et al. 2017, 1708.05123"
    paper_norm: ClassVar[type[NormConfig]] = BatchNormConfig
    name: Literal["dcn"] = "dcn"
    cross: CrossOptions = CrossOptions()

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`DCN`."""
        from models.zoo.dcn.network import DCN

        return DCN(self, spec, dropout=dropout)
