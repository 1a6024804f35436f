"""The ad-image model: a small CNN on the creative, joined to the tabular features."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras
from models.layers.image_network import ImageNetwork, layer_sizes
from models.layers.tabular import FlatFeatures
from models.zoo.ad_image import AdImageConfig
from models.zoo.base import CTRModel, Inputs
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec

__all__ = ["AdImage"]


class AdImage(CTRModel):
    """Ad-image click model.

    i_k = CNN_k(image_k) [batch, image.embedding_dim], one network per image feature
    logit = w . MLP([numeric, embeddings, i_1, i_2, ...]) + b

    Paper: Chen et al. 2016, "Deep CTR Prediction in Display Advertising", arXiv 1609.06018, with a
    much smaller network in place of its 17 layers. Its own normalization: batch, in the CNN and
    after the join; group norm is the usual choice for small batches. `image.norm` sets the CNN's
    alone.
    """

    def __init__(
        self, config: AdImageConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        options = config.image
        if not spec.images:
            raise ConfigError(
                "ad_image needs an image feature",
                "a data set with none",
                "Declare a feature of kind image in the schema, or set model.name=dcn_v2.",
            )
        norm = config.image_norm
        for image in spec.images if norm.on_hidden else ():
            sizes = layer_sizes(image.height, image.width, len(options.filters))
            for (height, width), filters in zip(sizes, options.filters, strict=True):
                where = f"image {image.name}, {height} x {width} pixels at {filters} filters"
                norm.check_positions(height * width, filters, where)
        self.image_networks = [
            ImageNetwork(
                options.filters,
                options.embedding_dim,
                norm=self.norm_factory("image", norm),
                placement=norm.placement,
                name=f"image_{i}",
            )
            for i in range(len(spec.images))
        ]
        has_tabular = bool(spec.numeric or spec.categorical or spec.sequences)
        self.features = self.make_features(FlatFeatures) if has_tabular else None
        self.mlp = self.make_mlp(config.hidden_units, name="mlp")
        self.head = keras.layers.Dense(1, name="head")

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        parts = [
            network(inputs[f"image/{image.name}"], training=training)
            for image, network in zip(self.spec.images, self.image_networks, strict=True)
        ]
        if self.features is not None:
            parts.insert(0, self.features(inputs, training=training))
        return self.head(self.mlp(tf.concat(parts, axis=1), training=training))
