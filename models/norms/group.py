"""Group normalization."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from models.norms.base import AXIS_NOUNS, NORMS, AxisKind, Layer, NormConfig
from pipeline.errors import ConfigError

__all__ = ["GroupNormConfig"]


@NORMS.add
class GroupNormConfig(NormConfig):
    """Mean and variance of one row within groups of channels; over its fields or pixels, too.

    Attributes:
        groups: group only; must divide what it normalizes.
    """

    paper: ClassVar[str] = "Wu and He 2018, 1803.08494"
    kind: Literal["group"] = "group"
    groups: int = Field(8, ge=1)

    def make_layer(self, axis_kind: AxisKind) -> Layer:
        """Keras' own."""
        from models.keras2 import keras

        del axis_kind
        return keras.layers.GroupNormalization(groups=self.groups, axis=-1, epsilon=self.epsilon)

    def check_width(
        self, *, axis_kind: AxisKind, width: int, where: str, together: tuple[int, ...] = ()
    ) -> None:
        """Refuses groups that do not divide the width, or leave one number to a group of units."""
        noun = AXIS_NOUNS[axis_kind]
        if width % self.groups:
            rule = f"groups must divide {noun}"
        elif axis_kind == "units" and width == self.groups:
            rule = f"groups must leave several {noun} to a group, or the output is a constant"
        else:
            return
        groups = _suggest_groups((width, *together), self.groups)
        remedy = f"Try groups={groups}." if groups else "Use norm=none, or make it wider."
        raise ConfigError(rule, f"groups={self.groups}, {noun}={width}", f"{remedy} ({where})")

    def num_groups(self, width: int) -> int:
        """`groups`, whatever the width."""
        del width
        return self.groups


def _suggest_groups(widths: tuple[int, ...], at_most: int) -> int:
    """The most groups that divide every width and are fewer than each; 0 when there are none."""
    common = math.gcd(*widths)
    candidates = range(1, min(at_most + 1, *widths))
    return max((groups for groups in candidates if common % groups == 0), default=0)
