"""No normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from models.norms.base import NORMS, AxisKind, NormConfig

if TYPE_CHECKING:
    from models.keras2 import keras

__all__ = ["NoNormConfig"]


@NORMS.add
class NoNormConfig(NormConfig):
    """The identity."""

    title: ClassVar[str] = "no normalization"
    changes_nothing: ClassVar[bool] = True
    kind: Literal["none"] = "none"

    def make_layer(self, axis_kind: AxisKind) -> keras.layers.Layer:
        """The identity."""
        from models.keras2 import keras

        del axis_kind
        return keras.layers.Identity()
