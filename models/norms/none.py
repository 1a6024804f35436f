"""No normalization."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.norms.base import NORMS, AxisKind, Layer, NormConfig

__all__ = ["NoNormConfig"]


@NORMS.add
class NoNormConfig(NormConfig):
    """No normalization."""

    changes_nothing: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def make_layer(self, axis_kind: AxisKind) -> Layer:
        """The identity."""
        from models.keras2 import keras

        del axis_kind
        return keras.layers.Identity()
