"""A throw-away model: its options. The network is beside them."""

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


class PerceptronOptions(StrictConfig):
    """First layer of perceptron.

    Attributes:
        first_units: width of the layer in front of hidden_units.
    """

    label: ClassVar[str] = "model.perceptron"
    first_units: Width = 8


@MODELS.add
class PerceptronConfig(ModelConfig):
    """Perceptron.

    Attributes:
        perceptron: the first layer.
    """

    title: ClassVar[str] = "an MLP alone"
    paper: ClassVar[Paper | None] = Paper(1958, "", "Rosenblatt")
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
