"""Layer normalization."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.norms.base import NORMS, AxisKind, LastAxisNormConfig, Layer

__all__ = ["LayerNormConfig"]


@NORMS.add
class LayerNormConfig(LastAxisNormConfig):
    """Mean and variance of one row's units; of the dim of one field, of one whole image."""

    paper: ClassVar[str] = "Ba et al. 2016, 1607.06450"
    kind: Literal["layer"] = "layer"

    def make_layer(self, axis_kind: AxisKind) -> Layer:
        """Keras' own; of an image, its group normalization with a single group."""
        from models.keras2 import keras

        if axis_kind == "image":
            # LayerNormalization over an image would learn a gain per pixel: per channel is meant
            return keras.layers.GroupNormalization(groups=1, axis=-1, epsilon=self.epsilon)
        return keras.layers.LayerNormalization(axis=-1, epsilon=self.epsilon)
