"""Variance-only layer normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from models.norms.base import NORMS, AxisKind, LastAxisNormConfig
from models.registry import Paper

if TYPE_CHECKING:
    from models.keras2 import keras

__all__ = ["VarianceOnlyNormConfig"]


@NORMS.add
class VarianceOnlyNormConfig(LastAxisNormConfig):
    """Deviation of one row's units, of the dim of one field, or of one whole image."""

    title: ClassVar[str] = "deviation of one row's units, no centering or gain"
    paper: ClassVar[Paper | None] = Paper(2020, "2006.12753", "Wang et al.")
    kind: Literal["variance_only"] = "variance_only"

    def make_layer(self, axis_kind: AxisKind) -> keras.layers.Layer:
        """`VarianceOnlyLayerNorm`."""
        from models.layers.normalization import IMAGE_AXES, VarianceOnlyLayerNorm

        axes = IMAGE_AXES if axis_kind == "image" else (-1,)
        return VarianceOnlyLayerNorm(epsilon=self.epsilon, axes=axes)
