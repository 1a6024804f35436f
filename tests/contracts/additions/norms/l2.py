"""A throw-away norm: every row has the same length. The layer is in models/layers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.norms.base import NORMS, AxisKind, LastAxisNormConfig, Layer


@NORMS.add
class L2NormConfig(LastAxisNormConfig):
    """Length of one row.

    Attributes:
        length: of a row after it.
    """

    kind: Literal["l2"] = "l2"
    length: float = Field(3.0, gt=0)

    def make_layer(self, axis_kind: AxisKind) -> Layer:
        """`L2Norm`."""
        from models.layers.l2_norm import L2Norm

        axes = (1, 2, 3) if axis_kind == "image" else (-1,)
        return L2Norm(length=self.length, epsilon=self.epsilon, axes=axes)
