"""A throw-away model: its options. The network is beside them."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.config.model import MODELS, CTRModel, EncodedSpec, ModelConfig, Width
from models.norms.base import NormConfig, NormPlace
from models.norms.none import NoNormConfig
from pipeline.strict_config import StrictConfig


class PerceptronOptions(StrictConfig):
    """First layer of perceptron.

    Attributes:
        first_units: width of the layer in front of hidden_units.
    """

    label: ClassVar[str] = "model.perceptron"
    first_units: Width = 8


@MODELS.add
class PerceptronConfig(ModelConfig):
    """An MLP alone.

    Attributes:
        perceptron: the first layer.
    """

    paper: ClassVar[str] = "Rosenblatt 1958"
    paper_norm: ClassVar[type[NormConfig]] = NoNormConfig
    name: Literal["perceptron"] = "perceptron"
    perceptron: PerceptronOptions = PerceptronOptions()

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`Perceptron`."""
        from models.zoo.perceptron.network import Perceptron

        return Perceptron(self, spec, dropout=dropout)

    def hidden_places(self) -> list[NormPlace]:
        """Both."""
        first = self.places("model.perceptron.first_units", "units", (self.perceptron.first_units,))
        return first + super().hidden_places()
