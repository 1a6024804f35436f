"""DCN-v2: its options. The network is beside them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from models.config.model import MODELS, Count, CTRModel, EncodedSpec, ModelConfig, Width
from models.norms.base import NormConfig
from models.norms.none import NoNormConfig
from pipeline.errors import ConfigError
from pipeline.strict_config import StrictConfig

__all__ = ["CrossOptions", "DCNv2Config"]


class CrossOptions(StrictConfig):
    """Cross layers of dcn_v2.

    Attributes:
        num_layers: number of cross layers; the polynomial degree minus one.
        projection_dim: rank of W = U V, None for a full matrix. The paper advises width / 4.
        num_experts: above 1 a gated mixture of low-rank experts (needs projection_dim).
        structure: cross and deep network beside each other, or the deep one on top.
    """

    label: ClassVar[str] = "model.cross"
    num_layers: Count = 3
    projection_dim: Width | None = None
    num_experts: Count = 1
    structure: Literal["parallel", "stacked"] = "parallel"


@MODELS.add
class DCNv2Config(ModelConfig):
    """Matrix cross network (full, low-rank, mixture) with an MLP.

    Attributes:
        cross: the cross network.
    """

    paper: ClassVar[str] = "Wang et al. 2021, 2008.13535"
    paper_norm: ClassVar[type[NormConfig]] = NoNormConfig
    name: Literal["dcn_v2"] = "dcn_v2"
    cross: CrossOptions = CrossOptions()

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`DCNv2`."""
        from models.zoo.dcn_v2.network import DCNv2

        return DCNv2(self, spec, dropout=dropout)

    @model_validator(mode="after")
    def _refuse_a_mixture_of_full_rank(self) -> DCNv2Config:
        if self.cross.num_experts > 1 and self.cross.projection_dim is None:
            raise ConfigError(
                "a mixture of cross experts is low-rank: model.cross.projection_dim must be given",
                f"num_experts={self.cross.num_experts}, projection_dim=None",
                "Set model.cross.projection_dim=64, or model.cross.num_experts=1.",
            )
        return self
