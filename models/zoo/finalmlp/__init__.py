"""FinalMLP: its options. The network is beside them."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from models.config.model import MODELS, Count, CTRModel, EncodedSpec, ModelConfig, Width
from models.norms.base import NormConfig, NormPlace
from models.norms.batch import BatchNormConfig
from pipeline.errors import ConfigError
from pipeline.strict_config import StrictConfig

__all__ = ["FinalMLPConfig", "FinalMLPOptions"]


class FinalMLPOptions(StrictConfig):
    """Second stream, feature selection and fusion of finalmlp; hidden_units is the first stream.

    Attributes:
        second_units: hidden widths of the second stream.
        num_heads: heads of the bilinear fusion; must divide the last width of both streams. None
            takes as many as divide both, at most 200.
        feature_selection: gate each stream's input by its own context features.
        selection_units: hidden widths of the gates.
        first_context: features that the first gate reads; empty means a learned constant.
        second_context: the same for the second gate.
    """

    label: ClassVar[str] = "model.final_mlp"
    second_units: tuple[Width, ...] = Field((1000,), min_length=1)
    num_heads: Count | None = None
    feature_selection: bool = True
    selection_units: tuple[Width, ...] = (800,)
    first_context: tuple[str, ...] = ()
    second_context: tuple[str, ...] = ()


@MODELS.add
class FinalMLPConfig(ModelConfig):
    """Two MLP streams with feature gates and bilinear fusion.

    Attributes:
        final_mlp: second stream, feature selection and fusion.
    """

    paper: ClassVar[str] = "Mao et al. 2023, 2304.00902"
    paper_norm: ClassVar[type[NormConfig]] = BatchNormConfig
    name: Literal["finalmlp"] = "finalmlp"
    final_mlp: FinalMLPOptions = FinalMLPOptions()

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`FinalMLP`."""
        from models.zoo.finalmlp.network import FinalMLP

        return FinalMLP(self, spec, dropout=dropout)

    def hidden_places(self) -> list[NormPlace]:
        """Both streams."""
        second = self.places("model.final_mlp.second_units", "units", self.final_mlp.second_units)
        return super().hidden_places() + second

    @model_validator(mode="after")
    def _refuse_streams_that_cannot_be_fused(self) -> FinalMLPConfig:
        options = self.final_mlp
        if not self.hidden_units:
            raise ConfigError(
                "finalmlp needs its first stream: model.hidden_units must not be empty",
                "()",
                "Set model.hidden_units=[400, 400, 400].",
            )
        last_widths = math.gcd(self.hidden_units[-1], options.second_units[-1])
        if options.num_heads and last_widths % options.num_heads:
            raise ConfigError(
                "num_heads must divide the last width of both streams",
                f"num_heads={options.num_heads}, widths={self.hidden_units[-1]} and "
                f"{options.second_units[-1]}",
                f"Try num_heads={math.gcd(last_widths, options.num_heads)}.",
            )
        return self
