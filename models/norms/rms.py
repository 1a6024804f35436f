"""Root mean square normalization."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.norms.base import NORMS, AxisKind, LastAxisNormConfig, Layer

__all__ = ["RmsNormConfig"]


@NORMS.add
class RmsNormConfig(LastAxisNormConfig):
    """Root mean square of one row's units, no centering; of a field's dim, of a whole image."""

    paper: ClassVar[str] = "Zhang and Sennrich 2019, 1910.07467"
    kind: Literal["rms"] = "rms"

    def make_layer(self, axis_kind: AxisKind) -> Layer:
        """`RMSNorm`."""
        from models.layers.normalization import IMAGE_AXES, RMSNorm

        axes = IMAGE_AXES if axis_kind == "image" else (-1,)
        return RMSNorm(epsilon=self.epsilon, axes=axes)
