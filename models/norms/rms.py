"""Root mean square normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from models.norms.base import NORMS, AxisKind, LastAxisNormConfig
from models.registry import Paper

if TYPE_CHECKING:
    from models.keras2 import keras

__all__ = ["RmsNormConfig"]


@NORMS.add
class RmsNormConfig(LastAxisNormConfig):
    """Root mean square of one row's units, of the dim of one field, or of one whole image."""

    title: ClassVar[str] = "root mean square of one row's units, no centering"
    paper: ClassVar[Paper | None] = Paper(2019, "1910.07467", "Zhang and Sennrich")
    kind: Literal["rms"] = "rms"

    def make_layer(self, axis_kind: AxisKind) -> keras.layers.Layer:
        """`RMSNorm`."""
        from models.layers.normalization import IMAGE_AXES, RMSNorm

        axes = IMAGE_AXES if axis_kind == "image" else (-1,)
        return RMSNorm(epsilon=self.epsilon, axes=axes)
