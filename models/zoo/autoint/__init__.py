"""AutoInt: its options. The network is beside them."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.config.model import MODELS, Count, CTRModel, EncodedSpec, ModelConfig, Width
from models.norms.base import NormConfig, NormPlace
from models.norms.none import NoNormConfig
from pipeline.strict_config import StrictConfig

__all__ = ["AttentionOptions", "AutoIntConfig"]


class AttentionOptions(StrictConfig):
    """Interacting layers of autoint: multi-head self-attention over the fields.

    Attributes:
        num_layers: number of interacting layers.
        num_heads: heads per layer.
        head_dim: width of one head; a layer's output has num_heads * head_dim channels.
        residual: add a linear map of the layer's input before the ReLU.
    """

    label: ClassVar[str] = "model.attention"
    num_layers: Count = 3
    num_heads: Count = 2
    head_dim: Width = 32
    residual: bool = True


@MODELS.add
class AutoIntConfig(ModelConfig):
    """Self-attention over the fields, plus an MLP unless hidden_units is empty.

    Attributes:
        attention: the interacting layers.
    """

    paper: ClassVar[str] = "Song et al. 2019, 1810.11921"
    paper_norm: ClassVar[type[NormConfig]] = NoNormConfig
    name: Literal["autoint"] = "autoint"
    attention: AttentionOptions = AttentionOptions()

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`AutoInt`."""
        from models.zoo.autoint.network import AutoInt

        return AutoInt(self, spec, dropout=dropout)

    def hidden_places(self) -> list[NormPlace]:
        """The MLP and the attention."""
        width = self.attention.num_heads * self.attention.head_dim
        attention = self.places("model.attention.head_dim", "fields", (width,))
        return super().hidden_places() + attention
