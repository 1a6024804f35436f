"""Variance-only layer normalization."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.norms.base import NORMS, AxisKind, LastAxisNormConfig, Layer

__all__ = ["VarianceOnlyNormConfig"]


@NORMS.add
class VarianceOnlyNormConfig(LastAxisNormConfig):
    """Deviation of one row's units, no centering or gain; of a field's dim, of a whole image."""

    paper: ClassVar[str] = "Wang et al. 2020, 2006.12753"
    kind: Literal["variance_only"] = "variance_only"

    def make_layer(self, axis_kind: AxisKind) -> Layer:
        """`VarianceOnlyLayerNorm`."""
        from models.layers.normalization import IMAGE_AXES, VarianceOnlyLayerNorm

        axes = IMAGE_AXES if axis_kind == "image" else (-1,)
        return VarianceOnlyLayerNorm(epsilon=self.epsilon, axes=axes)
