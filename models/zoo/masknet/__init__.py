"""MaskNet: its options. The network is beside them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from models.config.model import MODELS, Count, CTRModel, EncodedSpec, ModelConfig, Width
from models.norms.base import NormConfig, NormPlace
from models.norms.layer import LayerNormConfig
from pipeline.errors import ConfigError
from pipeline.strict_config import StrictConfig

__all__ = ["MaskNetConfig", "MaskOptions"]


class MaskOptions(StrictConfig):
    """Mask blocks of masknet.

    Attributes:
        structure: serial (each block on the one before; its widths are hidden_units) or parallel
            (blocks beside each other on the embeddings, hidden_units on top).
        num_blocks: parallel only; number of blocks.
        block_units: parallel only; output width of a block.
        reduction_ratio: width of a mask's hidden layer over the width of the mask.
    """

    label: ClassVar[str] = "model.mask"
    structure: Literal["serial", "parallel"] = "serial"
    num_blocks: Count = 3
    block_units: Width = 64
    reduction_ratio: float = Field(0.2, gt=0)


@MODELS.add
class MaskNetConfig(ModelConfig):
    """Instance-guided masks on embeddings and hidden layers.

    Attributes:
        mask: the mask blocks.
    """

    paper: ClassVar[str] = "Wang et al. 2021, 2102.07619"
    paper_norm: ClassVar[type[NormConfig]] = LayerNormConfig
    name: Literal["masknet"] = "masknet"
    mask: MaskOptions = MaskOptions()

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`MaskNet`."""
        from models.zoo.masknet.network import MaskNet

        return MaskNet(self, spec, dropout=dropout)

    def hidden_places(self) -> list[NormPlace]:
        """The MLP, which serial blocks take the place of, and parallel blocks."""
        widths = (self.mask.block_units,) if self.mask.structure == "parallel" else ()
        return super().hidden_places() + self.places("model.mask.block_units", "units", widths)

    @model_validator(mode="after")
    def _refuse_serial_blocks_without_widths(self) -> MaskNetConfig:
        if self.mask.structure == "serial" and not self.hidden_units:
            raise ConfigError(
                "serial mask blocks take their widths from model.hidden_units, never empty",
                "()",
                "Set model.hidden_units=[400, 400, 400], or model.mask.structure=parallel.",
            )
        return self
