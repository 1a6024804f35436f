"""AutoInt: its options. The network is beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from models.config.model import MODELS, Count, ModelConfig, Width
from models.norms.base import NormConfig, NormPlace
from models.norms.none import NoNormConfig
from models.registry import Paper
from pipeline.strict_config import StrictConfig

if TYPE_CHECKING:
    from models.zoo.base import CTRModel
    from pipeline.records.encoded import EncodedSpec

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
    """AutoInt.

    Attributes:
        attention: the interacting layers.
    """

    title: ClassVar[str] = (
        "self-attention over the fields, plus an MLP unless hidden_units is empty"
    )
    paper: ClassVar[Paper | None] = Paper(2019, "1810.11921", "Song et al.")
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
