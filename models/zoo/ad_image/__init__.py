"""The ad-image model: its options. The network is beside them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from models.config.model import MODELS, CTRModel, EncodedSpec, ModelConfig, Width
from models.norms.base import AnyNorm, NormConfig, NormPlace
from models.norms.batch import BatchNormConfig
from pipeline.strict_config import StrictConfig

__all__ = ["AdImageConfig", "ImageOptions"]


class ImageOptions(StrictConfig):
    """The convolutional network of ad_image.

    Attributes:
        filters: channels of each 3x3 convolution; every one is followed by 2x2 max pooling while it
            fits.
        embedding_dim: width of the image's embedding.
        norm: normalization inside the convolutional network; None takes model.norm.
    """

    label: ClassVar[str] = "model.image"
    filters: tuple[Width, ...] = Field((16, 32, 64), min_length=1)
    embedding_dim: Width = 32
    norm: AnyNorm | None = None


@MODELS.add
class AdImageConfig(ModelConfig):
    """Small CNN on the creative joined to the tabular features.

    Attributes:
        image: the convolutional network.
    """

    paper: ClassVar[str] = "Chen et al. 2016, 1609.06018"
    paper_norm: ClassVar[type[NormConfig]] = BatchNormConfig
    name: Literal["ad_image"] = "ad_image"
    image: ImageOptions = ImageOptions()

    def build(self, spec: EncodedSpec, *, dropout: float | None = None) -> CTRModel:
        """`AdImage`."""
        from models.zoo.ad_image.network import AdImage

        return AdImage(self, spec, dropout=dropout)

    @property
    def image_norm(self) -> NormConfig:
        """The normalization inside the convolutional network."""
        return self.image.norm or self.norm

    def hidden_places(self) -> list[NormPlace]:
        """The MLP and the convolutions."""
        return super().hidden_places() + [
            NormPlace("model.image.filters", "image", filters, self.image_norm)
            for filters in self.image.filters
        ]
