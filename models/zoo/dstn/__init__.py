"""DSTN: its options. The network is beside them."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.config.model import MODELS, CTRModel, EncodedSpec, ModelConfig, Width
from models.norms.base import NormConfig
from models.norms.none import NoNormConfig
from pipeline.strict_config import StrictConfig

__all__ = ["DSTNConfig", "DSTNOptions"]


class DSTNOptions(StrictConfig):
    """Auxiliary ad sequences of dstn.

    Attributes:
        aggregation: sum pooling (DSTN-P), self-attention (DSTN-S) or interactive attention
            (DSTN-I).
        auxiliary: one entry per kind of auxiliary ad (contextual, clicked, unclicked): the
            sequences whose embeddings, side by side, describe one such ad. Empty: every sequence is
            a kind of its own.
        target: the categorical features that describe the target ad. Empty: those whose vocabulary
            the auxiliary sequences share.
        attention_units: hidden width of the attention network.
    """

    label: ClassVar[str] = "model.dstn"
    aggregation: Literal["pooling", "self_attention", "interactive"] = "interactive"
    auxiliary: tuple[tuple[str, ...], ...] = ()
    target: tuple[str, ...] = ()
    attention_units: Width = 128


@MODELS.add
class DSTNConfig(ModelConfig):
    """Target ad with contextual, clicked and unclicked ad sequences.

    Attributes:
        dstn: the auxiliary ads.
    """

    paper: ClassVar[str] = "Ouyang et al. 2019, 1906.03776"
    paper_norm: ClassVar[type[NormConfig]] = NoNormConfig
    name: Literal["dstn"] = "dstn"
    dstn: DSTNOptions = DSTNOptions()

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`DSTN`."""
        from models.zoo.dstn.network import DSTN

        return DSTN(self, spec, dropout=dropout)
